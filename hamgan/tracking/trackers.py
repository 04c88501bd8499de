"""Send a run to wandb or TensorBoard in a background thread, so that a failing or slow tracker never affects it."""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from PIL import Image

from hamgan.checkpoint import Progress, way_of_measuring
from hamgan.checkpoint.evaluations import read_rows
from hamgan.checkpoint.progress import Rollback, position_of
from hamgan.config import RunConfig
from hamgan.files import JsonObject
from hamgan.tracking.panels import panel_of
from hamgan.tracking.tensorboard_writer import TensorBoardWriter
from hamgan.tracking.wandb_writer import WandbWriter

# Rows and sheets that wait for a slow tracker; more are dropped, but metrics.jsonl has all of them.
QUEUE_LENGTH = 256
SECONDS_TO_FINISH = 60.0
SECONDS_UNWRITTEN = 60.0
"""Rows of this time before a checkpoint are sent again on resuming: trackers write to disk some 15 s late."""


class Writer(Protocol):
    """Describe a writer for one tracker; ``made`` is a step that never decreases, see `images_made`."""

    @property
    def known(self) -> bool:
        """Return whether this run has been written to the tracker before."""

    def start(self, first: int) -> int:
        """Open the run, which may lack ``first`` and later steps; returns the first step that it lacks."""

    def row(self, numbers: Mapping[str, float], images: int, made: int) -> None:
        """Write numbers."""

    def sheet(self, sheet: Image.Image, images: int, made: int) -> None:
        """Write a sample sheet."""

    def evaluations(self, summary: Mapping[str, Mapping[str, Any]]) -> None:
        """Write evaluations by name, each with its protocol."""

    def weights(self, file: Path, images: int) -> None:
        """Upload the file of the best weights."""

    def roll_back(self, images: int) -> None:
        """Continue from an earlier position, after a rollback."""

    def finish(self) -> None:
        """Finish writing and close the run."""


class Tracker:
    """Send rows, sheets and evaluations to the configured tracker.

    Everything, including its start, happens in a background thread with a bounded queue. Rows that the run folder has
    and the tracker lacks are sent first. After the first failure there is a warning and the tracker is not used any
    more.
    """

    def __init__(self, config: RunConfig, progress: Progress, warn: Callable[[str], None]) -> None:
        self.config, self.progress, self.warn = config, progress, warn
        self.name = config.log.tracker
        self.writer: Writer = WandbWriter(config, warn) if self.name == "wandb" else TensorBoardWriter(config)
        self.failed = False
        self._dropped = 0
        self._earlier = Earlier(config.folder, progress)
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def row(self, numbers: Mapping[str, float], images: int) -> None:
        """Send the numbers of a row."""
        made = images_made(images, self.progress.rollbacks)
        self._submit(lambda: self.writer.row(by_panel(numbers), images, made))

    def sheet(self, sheet: Image.Image, images: int) -> None:
        """Send a sample sheet."""
        made = images_made(images, self.progress.rollbacks)
        self._submit(lambda: self.writer.sheet(sheet, images, made))

    def evaluations(self) -> None:
        """Send the last and the best evaluation in results.jsonl."""
        self._submit(lambda: self.writer.evaluations(summarise_evaluations(self.config.folder)))

    def weights(self, file: Path, images: int) -> None:
        """Send a file of the best weights, then delete it."""

        def pass_on() -> None:
            self.writer.weights(file, images)
            file.unlink()

        self._submit(pass_on)

    def roll_back(self, images: int) -> None:
        """Tell the tracker that the run was rolled back to an earlier position."""
        self._submit(lambda: self.writer.roll_back(images))

    def close(self, seconds: float = SECONDS_TO_FINISH) -> None:
        """Let the tracker finish, waiting at most this many seconds."""
        if not self.failed:
            self._submit(None)
            self._thread.join(seconds)
            if self._thread.is_alive():
                self.warn(f"warning: {self.name} did not finish within {seconds:g} s and is abandoned")

    def _submit(self, action: Callable[[], None] | None) -> None:
        if self.failed:
            return
        try:
            self._waiting.put_nowait(action)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                self.warn(f"warning: {self.name} is too slow; some rows are in metrics.jsonl only")

    def _work(self) -> None:
        try:
            self._start()
            while (action := self._waiting.get()) is not None:
                action()
            self.writer.finish()
        except Exception as error:
            self.failed = True
            self.warn(f"warning: {self.name} failed and is not used any more: {error}")

    def _start(self) -> None:
        with self._earlier as earlier:
            first = self.writer.start(earlier.first_unwritten() if self.writer.known else 0)
            for what, images, made in earlier.since(first):
                if isinstance(what, Path):
                    self.writer.sheet(Image.open(what), images, made)
                else:
                    self.writer.row(by_panel(what), images, made)
        if summary := summarise_evaluations(self.config.folder):
            self.writer.evaluations(summary)


class Earlier:
    """Read the rows and sheets of a run folder up to the current position, while the run goes on."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.images, self.seconds, self.rollbacks = progress.images, progress.seconds, list(progress.rollbacks)
        path = folder / "metrics.jsonl"
        # Kept open, since dropping rows later replaces the file.
        self._rows: BinaryIO | None = path.open("rb") if path.is_file() else None
        self._bytes = path.stat().st_size if path.is_file() else 0
        self._sheets = {images: sheet for images, sheet in find_sheets(folder).items() if images <= self.images}

    def __enter__(self) -> "Earlier":
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows is not None:
            self._rows.close()

    def _numbers(self) -> Iterator[tuple[dict[str, float], int]]:
        if self._rows is None:
            return
        self._rows.seek(0)
        while self._rows.tell() < self._bytes:
            row = number_entries(json.loads(self._rows.readline()))
            yield row, round(row["kimg"] * 1000)

    def first_unwritten(self) -> int:
        """Return the step of the first row that a killed tracker may lack; at latest that of the last row."""
        last = 0
        for row, images in self._numbers():
            last = images_made(images, self.rollbacks)
            if row.get("seconds", 0.0) >= self.seconds - SECONDS_UNWRITTEN:
                break
        return last

    def since(self, first: int) -> Iterator[tuple[dict[str, float] | Path, int, int]]:
        """Return rows and paths of sheets from a step on, in order, each with the images seen and made."""
        sheets = [(path, images, images_made(images, self.rollbacks)) for images, path in self._sheets.items()]
        sheets = [sheet for sheet in sheets if sheet[2] >= first]
        for row, images in self._numbers():
            made = images_made(images, self.rollbacks)
            while sheets and sheets[0][2] < made:
                yield sheets.pop(0)
            if made >= first:
                yield row, images, made
        yield from sheets


def find_sheets(run: Path) -> dict[int, Path]:
    """Return the sample sheets of a run folder, ordered by the images seen; other pictures are ignored."""
    found = {position_of(path.stem): path for path in (run / "samples").glob("*.png")}
    return {images: found[images] for images in sorted(images for images in found if images is not None)}


def images_made(images: int, rollbacks: list[Rollback]) -> int:
    """Return the images seen by D up to a position, including those that rollbacks have discarded."""
    abandoned = before = 0
    for rollback in rollbacks:
        start = round(float(rollback["to"]) * 1000)
        abandoned += round(rollback["from_kimg"] * 1000) - start
        if start < images:  # the position is after this rollback, and so after earlier ones
            before = abandoned
    return images + before


def by_panel(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return numbers keyed by ``PANEL/NAME``, which groups them in a tracker."""
    return {f"{panel_of(name) or 'run'}/{name}" if name != "kimg" else name: v for name, v in numbers.items()}


def number_entries(row: Mapping[str, object]) -> dict[str, float]:
    """Return the entries of a row that are numbers."""
    return {name: value for name, value in row.items() if isinstance(value, (int, float))}


def summarise_evaluations(folder: Path) -> dict[str, JsonObject]:
    """Return the last and the best of the rows in results.jsonl with a position.

    The best has the lowest FID, or the highest mIoU.
    """
    rows = read_rows(folder, lambda row: row.get("kimg") is not None)
    if not rows:
        return {}
    last = rows[-1]
    name = next((key for key in last if key.startswith(("fid", "miou"))), "")
    comparable = [row for row in rows if name in row and way_of_measuring(row) == way_of_measuring(last)]
    if not comparable:
        return {"last": last}
    sign = -1 if name.startswith("miou") else 1
    return {"last": last, "best": min(comparable, key=lambda row: sign * float(row[name]))}
