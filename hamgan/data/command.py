"""What scripts/prepare_data.py does with its options, and what it says."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hamgan.command_line import STOPPED
from hamgan.data.decode import Preparation
from hamgan.data.listing import list_pictures
from hamgan.data.merge import merge
from hamgan.data.prepare import PreparationError, check_output, prepare
from hamgan.data.resample import Crop, Filter
from hamgan.data.sources import DataError


def _check_options(resolution: int, val_fraction: float, min_side: int, workers: int | None) -> None:
    if not 8 <= resolution <= 1024:
        raise DataError(f"--resolution is {resolution}; allowed: 8 to 1024")
    if not 0 <= val_fraction < 1:
        raise DataError(f"--val-fraction is {val_fraction}; allowed: 0 to below 1")
    if min_side < 1:
        raise DataError(f"--min-side is {min_side}; it must be at least 1")
    if workers is not None and workers < 1:
        raise DataError(f"--workers is {workers}; it must be at least 1")


def _say(manifest: dict[str, Any], output: Path) -> None:
    counts = ", ".join(f"{entry['count']} {split}" for split, entry in manifest["splits"].items())
    print(f"{output}: {counts} images of {len(manifest['class_names'])} classes")
    left = manifest["left_out"]
    if left["class_folders"]:
        names = ", ".join(left["class_folders"][:5]) + (", ..." if len(left["class_folders"]) > 5 else "")
        print(f"left out: {len(left['class_folders'])} classes without usable pictures: {names}")
    if left["pictures_without_class"]:
        print(f"left out: {left['pictures_without_class']} pictures outside any class folder")
    if manifest["skipped"]:
        print(f"skipped: {manifest['skipped']} pictures; {output / 'skipped.jsonl'} says why")


def _interrupt(number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _or_exit(output: Path, make: Callable[[], dict[str, Any]]) -> None:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _say(make(), output)
    except PreparationError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare_command(
    source: str,
    output: Path,
    resolution: int,
    crop: Crop,
    filter: Filter,
    val_source: str | None,
    val_fraction: float,
    labels: Path | None,
    background: tuple[int, int, int],
    min_side: int,
    strict: bool,
    workers: int | None,
    shard: tuple[int, int],
) -> None:
    """Prepare a store; exits with 1 and a sentence when it has to stop."""
    _check_options(resolution, val_fraction, min_side, workers)
    how = Preparation(resolution, crop, filter, background, min_side)

    def make() -> dict[str, Any]:
        check_output(output)
        print(f"listing {source} ...", file=sys.stderr)
        listing = list_pictures(
            source, output / "work" / "unpacked", val_source=val_source, labels=labels, val_fraction=val_fraction
        )
        found = ", ".join(f"{len(pictures):,} {split}" for split, pictures in listing.pictures.items() if pictures)
        print(f"found {found} pictures of {len(listing.class_names):,} classes", file=sys.stderr)
        return prepare(source, listing, output, how, strict=strict, workers=workers, shard=shard)

    _or_exit(output, make)


def merge_command(store: Path, parts: list[Path]) -> None:
    """Merge parts; exits with 1 and a sentence when the disk is full."""
    _or_exit(store, lambda: merge(store, parts))
