"""Decode units of pictures in worker processes, which write them to the store."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch

from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.finding.picture import Picture
from hamgan.data.finding.reading import read_bytes
from hamgan.data.store import HEADER_BYTES, to_json
from hamgan.errors import DataError, PreparationError
from hamgan.files import write_atomically
from hamgan.progress import ProgressBar

UNIT_BYTES = 16 << 20
Finished = SimpleQueue[Future[tuple[int, int]] | None]


@dataclass(frozen=True)
class Unit:
    """Hold consecutive candidates that one worker decodes."""

    split: str
    number: int
    first: int
    """Row of the first picture in the split's images.npy."""
    pictures: list[Picture]

    def marker(self, store: Path) -> Path:
        """Return the file that marks a finished unit; it contains [row in the unit, reason] per skipped picture."""
        return store / "work" / f"{self.split}-{self.number:07d}.json"


def cut_units(split: str, pictures: list[Picture], preparation: Preparation) -> list[Unit]:
    """Divide candidates into units of at most 256 pictures and 16 MB of images, in order."""
    size = max(1, min(256, UNIT_BYTES // (preparation.resolution**2 * 3)))
    firsts = range(0, len(pictures), size)
    return [Unit(split, number, first, pictures[first : first + size]) for number, first in enumerate(firsts)]


def write_unit(store: Path, unit: Unit, preparation: Preparation, strict: bool) -> tuple[int, int]:
    """Decode the pictures of a unit, write them and then its marker; returns (images, skipped).

    A picture that cannot be used leaves a gap. Raises PreparationError for the first one if ``strict``, and for disk
    errors.
    """
    images = np.zeros((len(unit.pictures), preparation.resolution, preparation.resolution, 3), np.uint8)
    skipped: list[tuple[int, str]] = []
    for row, picture in enumerate(unit.pictures):
        try:
            images[row] = decode(read_bytes(picture), preparation)
        except (DataError, PermissionError) as error:
            if strict:
                raise PreparationError(f"{picture.key} {error}") from None
            skipped.append((row, str(error)))
        except OSError as error:  # a failing disk, not a bad picture
            raise PreparationError(f"{picture.key} cannot be read ({error}); the same command continues") from None
    with (store / unit.split / "images.npy").open("r+b") as file:
        file.seek(HEADER_BYTES + unit.first * images[0].nbytes)
        file.write(images.data)
        file.flush()
        os.fsync(file.fileno())
    write_atomically(unit.marker(store), to_json(skipped))
    return len(unit.pictures), len(skipped)


def _end_with_parent() -> None:
    # A worker that survives a killed preparation would write into the files of its continuation.
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")  # Pillow warns about unusual files; skipped.jsonl has what matters
    torch.set_num_threads(1)  # parallel over pictures is faster than inside one
    os.environ["OMP_NUM_THREADS"] = "1"


def _start_fork_server() -> None:
    """Start the fork server with SIGINT blocked, so that its workers ignore Ctrl-C from the start.

    Ctrl-C is sent to all processes of a terminal; the main process stops the others.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    # A fork server imports the libraries once; forking this process directly is unsafe once torch has threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hamgan.data.preparation.units", "torchvision.io"])
    _start_fork_server()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    except (BrokenProcessPool, MemoryError) as error:
        raise PreparationError(
            "a worker process died or ran out of memory; run the same command again to continue, perhaps with fewer "
            "--workers"
        ) from error
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():  # only complete units count, so nothing is lost
            worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupted_between_units(finished: Finished) -> Iterator[None]:
    """Put None into the queue on a signal, instead of raising KeyboardInterrupt.

    Raised inside the pool, the exception could leave a lock of the pool held, and closing the pool would hang.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if main and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, lambda *_: finished.put(None)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_units(
    store: Path, units: Sequence[Unit], preparation: Preparation, *, strict: bool, workers: int, total: int
) -> None:
    """Write units, with at most four per worker in flight to bound memory; ``total`` counts pictures of all units.

    Raises PreparationError as in `write_unit`, and for a worker that died.
    """
    waiting = iter(units)
    left = sum(len(unit.pictures) for unit in units)
    bar = ProgressBar(total, "prepare", initial=total - left)
    skipped = running = 0
    finished: Finished = SimpleQueue()
    with bar, _interrupted_between_units(finished), _workers(workers) as pool:
        while True:
            while running < 4 * workers and (unit := next(waiting, None)) is not None:
                pool.submit(write_unit, store, unit, preparation, strict).add_done_callback(finished.put)
                running += 1
            if not running:
                return
            if (future := finished.get()) is None:
                raise KeyboardInterrupt
            running -= 1
            images, bad = future.result()
            skipped += bad
            bar.update(images)
            bar.set_postfix_str(f"{skipped} skipped" if skipped else "", refresh=False)
