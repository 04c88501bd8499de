"""Prepare a store in parallel processes, resumable after a kill at any moment, with reproducible bytes.

The candidates of a split are divided into units. A worker decodes a unit, writes its images to their final position in
images.npy and then a marker ``work/SPLIT-UNIT.json`` by an atomic rename; a unit without a marker is done again. When
all units are done, `finish` completes the store.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from hamgan.data.decoding.decode import Preparation
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.preparation.finishing import finish
from hamgan.data.preparation.units import Unit, cut_units, run_units
from hamgan.data.store import HEADER_BYTES, Manifest, PreparationPlan, array_header, read_manifest, to_json
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
    """Prepare a store from a listing; returns its manifest. Running it again continues, or does nothing if finished.

    ``shard`` (i, n) prepares part i of n, counted from 0, as a store for `merge`. With ``strict`` the first unusable
    picture raises PreparationError. Raises DataError before anything is written if the output contains something else,
    and PreparationError for a full disk or a killed worker.
    """
    _check_listing(source, listing)
    pictures = _pictures_of_shard(listing, shard)
    plan: PreparationPlan = {
        "source": source,
        "listing": listing.sha256(),
        "preparation": preparation.protocol(),
        "shard": list(shard),
        "candidates": {split: len(candidates) for split, candidates in pictures.items()},
    }
    check_store_folder(store)
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


def check_store_folder(store: Path) -> None:
    """Raise DataError if the output folder is neither empty nor a store, finished or not."""
    begun = (store / "manifest.json").exists() or (store / "work").exists()
    if store.exists() and not store.is_dir():
        raise DataError(f"{store} is not a folder; choose another --output")
    if store.exists() and not begun and any(store.iterdir()):
        raise DataError(f"{store} is not empty and not a store; choose another --output")


def _is_finished(store: Path, plan: PreparationPlan) -> bool:
    """Return whether the store is finished; else write the plan, or compare it with the unfinished store's."""
    path = store / "work" / "plan.json"
    if (store / "manifest.json").exists():
        before = read_manifest(store)["plan"]
        # Entries that an earlier version did not write count as equal.
        before["preparation"] = {**plan["preparation"], **before["preparation"]}
        changed = _changes(before, plan)
        shutil.rmtree(store / "work", ignore_errors=True)  # left by a kill at the very end
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


def _changes(before: PreparationPlan, plan: PreparationPlan) -> list[str]:
    """Return the keys that differ, except the name of the source, whose content the listing's hash covers."""
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
        if split in unfinished or count == 0:  # a part may have no pictures in a small split
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
    """Create the images file with its full length as a sparse file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(array_header(count, resolution))
        file.truncate(HEADER_BYTES + count * resolution**2 * 3)
