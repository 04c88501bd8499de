"""Making a store: parallel over processes, resumable after a kill at any moment, the same bytes every time.

The candidates of a split are cut into units. A worker decodes a unit, writes its images at their final place in
images.npy and then a marker ``work/SPLIT-UNIT.json`` by an atomic rename; a unit without a marker is done again.
When all units are there, the holes left by skipped pictures are filled with the last images, the file is cut to its
length and the manifest is written: each of these steps can be repeated without harm.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hamgan.data.decode import Preparation, decode
from hamgan.data.listing import Listing, Picture, read_bytes
from hamgan.data.resample import use_one_thread
from hamgan.data.sources import DataError
from hamgan.data.store import (
    FORMAT,
    HEADER_BYTES,
    array_header,
    hash_shards,
    open_images,
    read_manifest,
    split_hash,
    to_json,
    write_atomically,
)

UNIT_BYTES = 16 << 20


class PreparationError(RuntimeError):
    """A preparation that had to stop; running the same command again continues it."""


@dataclass(frozen=True)
class Unit:
    """A run of candidates that one worker turns into images."""

    name: str
    first: int
    pictures: list[Picture]


def _write_unit(store: Path, split: str, unit: Unit, how: Preparation, strict: bool) -> tuple[int, int]:
    """In a worker: decode, write, mark; returns (images, skipped)."""
    images = np.zeros((len(unit.pictures), how.resolution, how.resolution, 3), np.uint8)
    skipped: list[tuple[int, str]] = []
    for row, picture in enumerate(unit.pictures):
        try:
            images[row] = decode(read_bytes(picture), how)
        except (DataError, OSError) as error:
            if strict:
                raise PreparationError(f"{picture.key} {error}") from None
            skipped.append((row, str(error)))
    with (store / split / "images.npy").open("r+b") as file:
        file.seek(HEADER_BYTES + unit.first * images[0].nbytes)
        file.write(images.data)
        file.flush()
        os.fsync(file.fileno())
    write_atomically(store / "work" / f"{unit.name}.json", to_json(skipped))
    return len(unit.pictures), len(skipped)


def _start_worker() -> None:
    warnings.simplefilter("ignore")  # Pillow warns about odd files; what matters is in skipped.jsonl
    use_one_thread()


def _units(split: str, pictures: list[Picture], how: Preparation) -> list[Unit]:
    size = max(1, min(256, UNIT_BYTES // (how.resolution**2 * 3)))
    return [
        Unit(f"{split}-{first // size:07d}", first, pictures[first : first + size])
        for first in range(0, len(pictures), size)
    ]


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


def _start_or_resume(store: Path, plan: dict[str, Any]) -> bool:
    """Write the plan, or compare it with the one that is there; true when the store is finished already."""
    path, work = store / "work" / "plan.json", store / "work"
    if (store / "manifest.json").exists() and not path.exists():
        if read_manifest(store)["plan"] == plan:
            return True
        raise DataError(f"{store} already holds a different store; choose another --output")
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if before != plan:
            changed = ", ".join(key for key in plan if before.get(key) != plan[key])
            raise DataError(
                f"{store} holds an unfinished preparation with a different {changed}; "
                "repeat its options to continue it, or choose another --output"
            )
        return False
    if store.exists() and any(item.name != "work" for item in store.iterdir()):
        raise DataError(f"{store} is not empty and not a store; choose another --output")
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json(plan))
    return False


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    # A fork server imports the libraries once; forking this process directly is unsafe once torch has threads.
    context = get_context("forkserver")
    context.set_forkserver_preload(["hamgan.data.prepare"])
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run_units(
    store: Path, todo: list[tuple[str, Unit]], how: Preparation, strict: bool, workers: int, total: int
) -> None:
    """Do the units that have no marker yet, at most four per worker in flight (bounded memory)."""
    queue = iter(todo)
    left = sum(len(unit.pictures) for _, unit in todo)
    bar = tqdm(total=total, initial=total - left, unit="img", desc="prepare", smoothing=0.05, mininterval=0.5)
    skipped = 0
    with bar, _workers(workers) as pool:
        running: set[Future[tuple[int, int]]] = set()
        while True:
            while len(running) < 4 * workers and (item := next(queue, None)) is not None:
                running.add(pool.submit(_write_unit, store, item[0], item[1], how, strict))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    images, bad = future.result()
                except BrokenProcessPool as error:
                    raise PreparationError(
                        "a worker process died (out of memory?); run the same command again to continue"
                    ) from error
                skipped += bad
                bar.update(images)
                bar.set_postfix(skipped=skipped, refresh=False)


def _reserve(store: Path, split: str, count: int, resolution: int) -> None:
    """The images file at its full length, without occupying the disk yet."""
    path = store / split / "images.npy"
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(array_header(count, resolution))
        file.truncate(HEADER_BYTES + count * resolution**2 * 3)


def _close_gaps(store: Path, split: str, valid: np.ndarray, resolution: int) -> np.ndarray:
    """Move the last images into the places of skipped pictures; returns the candidate of every image."""
    count = int(valid.sum())
    order = np.arange(count)
    holes = np.flatnonzero(~valid[:count])
    donors = count + np.flatnonzero(valid[count:])
    order[holes] = donors
    path = store / split / "images.npy"
    size = HEADER_BYTES + count * resolution**2 * 3
    if path.stat().st_size != size:
        images = np.memmap(path, np.uint8, "r+", HEADER_BYTES, (len(valid), resolution, resolution, 3))
        for hole, donor in zip(holes.tolist(), donors.tolist(), strict=True):
            images[hole] = images[donor]
        images.flush()
        del images
        with path.open("r+b") as file:
            file.write(array_header(count, resolution))
            file.truncate(size)
            os.fsync(file.fileno())
    return order


def _finish_split(
    store: Path, split: str, pictures: list[Picture], units: list[Unit], classes: list[str], resolution: int
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Manifest entry and skip list of a split whose units are all done."""
    valid = np.ones(len(pictures), bool)
    skips = []
    for unit in units:
        for row, reason in json.loads((store / "work" / f"{unit.name}.json").read_text("utf-8")):
            valid[unit.first + row] = False
            picture = unit.pictures[row]
            skips.append({"file": picture.key, "class": classes[picture.label], "split": split, "reason": reason})
    order = _close_gaps(store, split, valid, resolution)
    labels = np.asarray([picture.label for picture in pictures], np.int64)[order]
    entry = write_labels_and_hash(store, split, labels, len(classes), resolution)
    return entry, skips


def write_labels_and_hash(store: Path, split: str, labels: np.ndarray, classes: int, resolution: int) -> dict[str, Any]:
    """labels.npy, and the manifest entry of a split whose images are complete."""
    temporary = store / split / ".labels.tmp.npy"
    np.save(temporary, labels)
    temporary.replace(store / split / "labels.npy")
    images = open_images(store, split, len(labels), resolution)
    with tqdm(total=len(labels), unit="img", desc=f"hash {split}", mininterval=0.5) as bar:
        shards = hash_shards(images, bar.update)
    histogram = np.bincount(labels, minlength=classes).tolist()
    return {"count": len(labels), "sha256": split_hash(shards, labels), "histogram": histogram, "shards": shards}


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

    shard: (i, n) prepares part i of n into a store of its own, for `hamgan.data.merge.merge`. strict: the first
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
    if _start_or_resume(store, plan):
        return read_manifest(store)
    total = sum(map(len, share.values()))
    _check_space(store, total * how.resolution**2 * 3)
    units = {split: _units(split, pictures, how) for split, pictures in share.items()}
    done = {file.stem for file in (store / "work").glob("*.json")}
    todo = [(split, unit) for split in units for unit in units[split] if unit.name not in done]
    for split in {split for split, _ in todo}:
        _reserve(store, split, len(share[split]), how.resolution)
    if todo:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        _run_units(store, todo, how, strict, min(workers or cores, len(todo)), total)
    return _finish(store, plan, listing, share, units, how)


def _finish(
    store: Path,
    plan: dict[str, Any],
    listing: Listing,
    share: dict[str, list[Picture]],
    units: dict[str, list[Unit]],
    how: Preparation,
) -> dict[str, Any]:
    splits, skips = {}, []
    for split, pictures in share.items():
        splits[split], bad = _finish_split(store, split, pictures, units[split], listing.class_names, how.resolution)
        skips += bad
    manifest = {
        "format": FORMAT,
        "source": plan["source"],
        "preparation": how.protocol(),
        "class_names": listing.class_names,
        "left_out": {"class_folders": listing.left_out, "pictures_without_class": listing.unclassed},
        "skipped": len(skips),
        "splits": splits,
        "plan": plan,
    }
    write_skips(store, skips)
    write_atomically(store / "manifest.json", to_json(manifest))
    shutil.rmtree(store / "work")
    return manifest


def write_skips(store: Path, skips: list[dict[str, str]]) -> None:
    """skipped.jsonl: one line per picture that could not be used."""
    lines = "".join(json.dumps(skip, ensure_ascii=False) + "\n" for skip in skips)
    write_atomically(store / "skipped.jsonl", lines.encode("utf-8", "backslashreplace"))
