"""Read the command line of `hamgan prepare`: make a store, look into one, merge parts."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hamgan.data.decoding.decode import Preparation
from hamgan.data.decoding.resize import Crop, Filter
from hamgan.data.finding.listing import list_pictures
from hamgan.data.preparation.merge import merge
from hamgan.data.preparation.prepare import PreparationError, check_output, prepare
from hamgan.errors import STOPPED, DataError

DESCRIPTION = """Make a store of images from folders, archives, CIFAR or the Hugging Face hub; look into one; merge.

  hamgan prepare --source FOLDER|TAR|ZIP|'shards-{000..099}.tar'|hf:NAME|cifar10 --output STORE --resolution 128
  hamgan prepare inspect STORE [--verify] [--sheets FOLDER]
  hamgan prepare merge STORE PART [PART ...]

Running the same command again after an interruption continues it.
"""


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


def shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"`{text}` is not i/n with i from 1 to n")
    return int(part) - 1, int(parts)


def colour(text: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is not a colour such as white or #ff8000") from error
    return red, green, blue


def preparation_parser(prog: str) -> argparse.ArgumentParser:
    """The options of a preparation."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--source", required=True, help="class folders, tar, zip, shards, hf:NAME, cifar10, cifar100")
    parser.add_argument("--output", required=True, type=Path, help="folder of the store")
    parser.add_argument("--resolution", type=int, default=128, help="image side in pixels (default: 128)")
    parser.add_argument(
        "--crop",
        choices=["centre", "paper", "adm"],
        default="centre",
        help="centre: central square; paper: HamGAN's aliased bilinear; adm: box halvings, bicubic (default: centre)",
    )
    parser.add_argument(
        "--filter",
        choices=["lanczos", "bicubic", "bilinear", "box"],
        default="lanczos",
        help="antialiasing filter of --crop centre (default: lanczos)",
    )
    parser.add_argument("--val-source", help="where the val split is, if not in a val folder of --source")
    parser.add_argument(
        "--val-fraction", type=float, default=0.0, help="share of train to hold out as val (default: 0)"
    )
    parser.add_argument("--labels", type=Path, help="classes of pictures without class folders: ImageNet's devkit, CSV")
    parser.add_argument(
        "--background", type=colour, default=(255, 255, 255), help="behind transparency (default: white)"
    )
    parser.add_argument("--min-side", type=int, default=16, help="skip pictures with a shorter side (default: 16)")
    parser.add_argument("--strict", action="store_true", help="stop at the first picture that cannot be used")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--shard", type=shard, default=(0, 1), metavar="i/n", help="prepare part i of n, for `merge`")
    return parser


def prepare_main(arguments: list[str], prog: str) -> None:
    from hamgan.data.preparation.command import prepare_command

    prepare_command(**vars(preparation_parser(prog).parse_args(arguments)))


def inspect_main(arguments: list[str], prog: str) -> None:
    parser = argparse.ArgumentParser(prog=f"{prog} inspect", description="Look into a store.")
    parser.add_argument("store", type=Path, help="folder of the store")
    parser.add_argument("--verify", action="store_true", help="compare every pixel with the manifest's hashes")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a contact sheet per class")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)

    from hamgan.data.preparation.inspection import check_hashes, describe_store, summary, write_sheets

    report = describe_store(options.store)
    print(json.dumps(report, indent=1) if options.json else summary(report))
    if options.sheets:
        print(f"wrote {len(write_sheets(options.store, options.sheets))} contact sheets to {options.sheets}")
    if options.verify:
        check_hashes(options.store)
        print("every hash fits")


def merge_main(arguments: list[str], prog: str) -> None:
    parser = argparse.ArgumentParser(prog=f"{prog} merge", description="Join parts made with --shard i/n.")
    parser.add_argument("store", type=Path, help="folder of the new store")
    parser.add_argument("parts", type=Path, nargs="+", help="folders of all the parts")
    options = parser.parse_args(arguments)

    from hamgan.data.preparation.command import merge_command

    merge_command(options.store, options.parts)


def main(arguments: Sequence[str], prog: str = "hamgan prepare") -> None:
    """Run the command that the arguments name; raises ConfigError (a sentence) for bad usage and unusable input."""
    commands = {"inspect": inspect_main, "merge": merge_main}
    if arguments and arguments[0] in commands:
        commands[arguments[0]](list(arguments[1:]), prog)
    else:
        prepare_main(list(arguments), prog)
