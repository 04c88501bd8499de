"""Making a store: parallel over processes, resumable after a kill at any moment, the same bytes every time.

The candidates of a split are cut into units. A worker decodes a unit, writes its images at their final place in
images.npy and then a marker ``work/SPLIT-UNIT.json`` by an atomic rename; a unit without a marker is done again.
When all units are there, `finishing` makes them a store.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hamgan.data.decoding.decode import Preparation
from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.preparation.finishing import finish
from hamgan.data.preparation.units import cut_units, run_units
from hamgan.data.store import HEADER_BYTES, array_header, read_manifest, to_json, write_atomically
from hamgan.errors import DataError, PreparationError


def _share(listing: Listing, shard: tuple[int, int]) -> dict[str, list[Picture]]:
    """Candidates of part i of n (counted from 0): a contiguous range of every split."""
    part, parts = shard
    return {
        split: pictures[len(pictures) * part // parts : len(pictures) * (part + 1) // parts]
        for split, pictures in listing.pictures.items()
        if pictures
    }


def _check_listing(source: str, listing: Listing) -> None:
    train = listing.pictures["train"]
    used = {picture.label for picture in train}
    if len(listing.class_names) < 2:
        raise DataError(
            f"{source} has one class only (`{listing.class_names[0]}`, {len(train)} pictures); "
            "a conditional model needs two or more"
        )
    missing = [name for label, name in enumerate(listing.class_names) if label not in used]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(listing.class_names)} classes have no train pictures, "
            f"e.g. `{missing[0]}`"
        )


def _check_space(store: Path, needed: int) -> None:
    allocated = sum(file.stat().st_blocks * 512 for file in store.glob("*/images.npy"))
    free = shutil.disk_usage(store).free
    if needed - allocated > free:
        raise PreparationError(
            f"{store} needs {needed / 1e9:.2f} GB, but only {(free + allocated) / 1e9:.2f} GB are free there"
        )


def check_output(store: Path) -> None:
    """Raise DataError when the output folder holds something else than a store, finished or not."""
    begun = (store / "manifest.json").exists() or (store / "work").exists()
    if store.exists() and not store.is_dir():
        raise DataError(f"{store} is not a folder; choose another --output")
    if store.exists() and not begun and any(store.iterdir()):
        raise DataError(f"{store} is not empty and not a store; choose another --output")


def _start_or_resume(store: Path, plan: dict[str, Any]) -> bool:
    """Write the plan, or compare it with the one that is there; true when the store is finished already."""
    path = store / "work" / "plan.json"
    if (store / "manifest.json").exists():
        finished = _same_plan(read_manifest(store)["plan"], plan)
        shutil.rmtree(store / "work", ignore_errors=True)  # left by a kill at the very end, or just unpacked
        if not finished:
            raise DataError(f"{store} already holds a different store; choose another --output")
        return True
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if not _same_plan(before, plan):
            changed = ", ".join(key for key in plan if before.get(key) != plan[key])
            raise DataError(
                f"{store} holds an unfinished preparation with a different {changed}; repeat its options to continue "
                "it, delete it, or choose another --output"
            )
        return False
    check_output(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json(plan))
    return False


def _same_plan(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal but for the name of the source: the listing's hash says that it holds the same."""
    return {**one, "source": None} == {**other, "source": None}


@contextmanager
def _only_process(store: Path) -> Iterator[None]:
    """Keep a second preparation of the same store out; a killed one leaves no lock behind."""
    store.mkdir(parents=True, exist_ok=True)
    folder = os.open(store, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreparationError(f"another process is preparing {store}") from None
        yield
    finally:
        os.close(folder)


def _reserve(store: Path, split: str, count: int, resolution: int) -> None:
    """The images file at its full length, without occupying the disk yet."""
    path = store / split / "images.npy"
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(array_header(count, resolution))
        file.truncate(HEADER_BYTES + count * resolution**2 * 3)


def prepare(
    source: str,
    listing: Listing,
    store: Path,
    how: Preparation,
    *,
    strict: bool = False,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Turn a listing into a store and return its manifest; running it again continues or does nothing.

    shard: (i, n) prepares part i of n into a store of its own, for `merge`. strict: the first
    unusable picture raises PreparationError. Raises DataError before anything is written when the output holds
    something else, and PreparationError for a full disk or a killed worker.
    """
    _check_listing(source, listing)
    share = _share(listing, shard)
    plan = {
        "source": source,
        "listing": listing.sha256(),
        "preparation": how.protocol(),
        "shard": list(shard),
        "candidates": {split: len(pictures) for split, pictures in share.items()},
    }
    check_output(store)
    with _only_process(store):
        if _start_or_resume(store, plan):
            return read_manifest(store)
        total = sum(map(len, share.values()))
        _check_space(store, total * how.resolution**2 * 3)
        units = {split: cut_units(split, pictures, how) for split, pictures in share.items()}
        done = {file.stem for file in (store / "work").glob("*.json")}
        todo = [(split, unit) for split in units for unit in units[split] if unit.name not in done]
        unfinished = {split for split, _ in todo}
        for split in share:
            if split in unfinished or not share[split]:  # a part may have no pictures of a small split
                _reserve(store, split, len(share[split]), how.resolution)
        if todo:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            run_units(store, todo, how, strict, min(workers or cores, len(todo)), total)
        return finish(store, plan, listing, share, units)
