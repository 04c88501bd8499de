"""Make a store: parallel over processes, resumable after a kill at any moment, the same bytes every time.

The candidates of a split are cut into units. A worker decodes a unit, writes its images at their final place in
images.npy and then a marker ``work/SPLIT-UNIT.json`` by an atomic rename; a unit without a marker is done again.
When all units are there, `finish` makes them a store.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from hamgan.data.decoding.decode import Preparation
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.preparation.finishing import finish
from hamgan.data.preparation.units import Unit, cut_units, run_units
from hamgan.data.store import HEADER_BYTES, Manifest, Plan, array_header, read_manifest, to_json
from hamgan.errors import DataError, PreparationError
from hamgan.files import lock, write_atomically
from hamgan.machine import usable_cores


def prepare(
    source: str,
    listing: Listing,
    store: Path,
    preparation: Preparation,
    *,
    strict: bool = False,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Manifest:
    """Turn a listing into a store and return its manifest; running it again continues or does nothing.

    shard: (i, n) prepares part i of n into a store of its own, for `merge`. strict: the first unusable picture raises
    PreparationError. Raises DataError before anything is written when the output holds something else, and
    PreparationError for a full disk or a killed worker.
    """
    _check_listing(source, listing)
    pictures = _pictures_of_shard(listing, shard)
    plan: Plan = {
        "source": source,
        "listing": listing.sha256(),
        "preparation": preparation.protocol(),
        "shard": list(shard),
        "candidates": {split: len(candidates) for split, candidates in pictures.items()},
    }
    check_output(store)
    store.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(store, wait=False))
        except BlockingIOError:
            raise PreparationError(f"another process is preparing {store}") from None
        if _is_finished(store, plan):
            return read_manifest(store)
        units = {split: cut_units(split, candidates, preparation) for split, candidates in pictures.items()}
        _write_missing_units(store, units, preparation, strict, workers)
        return finish(store, plan, listing, units)


def _check_listing(source: str, listing: Listing) -> None:
    train = listing.pictures["train"]
    used = {picture.label for picture in train}
    if len(listing.class_names) < 2:
        raise DataError(
            f"{source} has one class only (`{listing.class_names[0]}`, {len(train)} pictures); "
            "a conditional model needs two or more"
        )
    if missing := [name for label, name in enumerate(listing.class_names) if label not in used]:
        raise DataError(
            f"{source}: {len(missing)} of {len(listing.class_names)} classes have no train pictures, "
            f"e.g. `{missing[0]}`"
        )


def _pictures_of_shard(listing: Listing, shard: tuple[int, int]) -> dict[str, list[Picture]]:
    """Return the candidates of part i of n, a contiguous range of every split."""
    part, parts = shard
    return {
        split: pictures[len(pictures) * part // parts : len(pictures) * (part + 1) // parts]
        for split, pictures in listing.pictures.items()
        if pictures
    }


def check_output(store: Path) -> None:
    """Raise DataError when the output folder holds something else than a store, finished or not."""
    begun = (store / "manifest.json").exists() or (store / "work").exists()
    if store.exists() and not store.is_dir():
        raise DataError(f"{store} is not a folder; choose another --output")
    if store.exists() and not begun and any(store.iterdir()):
        raise DataError(f"{store} is not empty and not a store; choose another --output")


def _is_finished(store: Path, plan: Plan) -> bool:
    """Tell whether the store is there already; else write the plan, or compare it with that of the unfinished store."""
    path = store / "work" / "plan.json"
    if (store / "manifest.json").exists():
        before = read_manifest(store)["plan"]
        # What an earlier version did not write down is no difference: its store stays what it is.
        before["preparation"] = {**plan["preparation"], **before["preparation"]}
        changed = _changes(before, plan)
        shutil.rmtree(store / "work", ignore_errors=True)  # left by a kill at the very end, or just unpacked
        if changed:
            raise DataError(f"{store} already holds a different store; choose another --output")
        return True
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, to_json(plan))
    elif changed := _changes(json.loads(path.read_text("utf-8")), plan):
        raise DataError(
            f"{store} holds an unfinished preparation with a different {', '.join(changed)}; repeat its options to "
            "continue it, delete it, or choose another --output"
        )
    return False


def _changes(before: Plan, plan: Plan) -> list[str]:
    """Name what differs but the name of the source: the hash of the listing tells whether it holds the same."""
    return [key for key, value in plan.items() if key != "source" and before.get(key) != value]


def _write_missing_units(
    store: Path, units: dict[str, list[Unit]], preparation: Preparation, strict: bool, workers: int | None
) -> None:
    candidates = {split: sum(len(unit.pictures) for unit in of_split) for split, of_split in units.items()}
    total = sum(candidates.values())
    _check_space(store, total * preparation.resolution**2 * 3)
    missing = [unit for of_split in units.values() for unit in of_split if not unit.marker(store).exists()]
    unfinished = {unit.split for unit in missing}
    for split, count in candidates.items():
        if split in unfinished or count == 0:  # a part may have no pictures of a small split
            _reserve(store / split / "images.npy", count, preparation.resolution)
    if missing:
        workers = min(workers or usable_cores(), len(missing))
        run_units(store, missing, preparation, strict=strict, workers=workers, total=total)


def _check_space(store: Path, needed: int) -> None:
    allocated = sum(file.stat().st_blocks * 512 for file in store.glob("*/images.npy"))
    free = shutil.disk_usage(store).free
    if needed - allocated > free:
        raise PreparationError(
            f"{store} needs {needed / 1e9:.2f} GB, but only {(free + allocated) / 1e9:.2f} GB are free there"
        )


def _reserve(path: Path, count: int, resolution: int) -> None:
    """Give the images file its full length, without occupying the disk yet."""
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(array_header(count, resolution))
        file.truncate(HEADER_BYTES + count * resolution**2 * 3)
