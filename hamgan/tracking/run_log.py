"""Write what a run reports: metrics.jsonl and sample sheets, lines or a bar on the screen, a tracker when chosen."""

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image

from hamgan.checkpoint import Progress, checkpoint_name
from hamgan.config import RunConfig
from hamgan.errors import CheckpointError
from hamgan.files import temporary_name, write_atomically
from hamgan.progress import ProgressBar, duration
from hamgan.tracking.trackers import SECONDS_TO_FINISH, Tracker, numbers_in
from hamgan.tracking.utilisation import Arithmetic

LOSSES = {"D": "d_loss", "G": "g_loss", "loss": "loss"}
"""Numbers on a progress bar: the name there -> the name in the row."""
SHOWN = ("d_loss", "g_loss", "logits_real", "logits_fake", "loss", "accuracy")
"""Numbers of a row that a line on the screen shows."""
SCORES = ("fid", "inception_score", "miou", "macc", "aacc")
"""Beginnings of the names of scores, which a line shows as well."""


class RunLog:
    """Keep rows and sheets of a run, where its ``progress`` stands; the main process alone writes.

    ``weights`` names the file in the run folder that is passed on, ``arithmetic`` what the speed of a run is worth.
    Rows of a resumed run that lie beyond its checkpoint are dropped first: they are about to be made again.
    """

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        progress: Progress,
        weights: str = "generator.safetensors",
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.config, self.folder, self.progress, self.weights = config, config.folder, progress, weights
        self.main = accelerator.is_main_process
        self._started, self._images_made = time.perf_counter(), 0
        self.steps_made = 0
        self._tracker: Tracker | None = None
        self._bar: ProgressBar | None = None
        self._unwritten: list[str] = []
        self._arithmetic = arithmetic
        if not self.main:
            return
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        self.drop_later_rows()
        if sys.stderr.isatty():
            total = round(config.train.total_kimg * 1000)
            self._bar = ProgressBar(total, config.name, "kimg", initial=progress.images)
        if config.log.tracker != "none":
            self._tracker = Tracker(config, progress, self.print_line)

    def drop_later_rows(self) -> None:
        """Drop the rows that lie beyond the run's position, after it has gone back."""
        if self.main:
            for name in ("metrics.jsonl", "results.jsonl"):
                keep_rows_until(self.folder / name, self.progress.images)
        if self._tracker is not None:
            self._tracker.roll_back(self.progress.images)

    def print_line(self, text: str) -> None:
        """Print a line above the progress bar; where nobody can read it (a full disk), the run goes on without."""
        if self.main:
            with contextlib.suppress(OSError):
                ProgressBar.write(text, file=sys.stderr)
                sys.stderr.flush()

    def count_step(self, images: int) -> None:
        """Count the images of a step that has just been made, and move the progress bar to the run's position."""
        self._images_made += images
        self.steps_made += 1
        if self._bar is not None:
            self._bar.update(self.progress.images - self._bar.n)

    def speed(self) -> dict[str, float]:
        """Return images per second in this process, seconds so far and to the end, a GPU's GiB and FLOP/s."""
        speed = self._images_made / (time.perf_counter() - self._started)
        left = max(0.0, self.config.train.total_kimg * 1000 - self.progress.images) / speed
        found = {"images_per_second": speed, "seconds": self.progress.seconds, "seconds_left": left}
        if torch.cuda.is_available():
            found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self._arithmetic is not None:
            found |= self._arithmetic.at(speed)
        return found

    def row(self, values: Mapping[str, object]) -> None:
        """Append one row to metrics.jsonl, show it and pass it on."""
        if not self.main:
            return
        row = {"kimg": self.progress.images / 1000, **values}
        self._unwritten.append(json.dumps(row) + "\n")
        with self.writing("metrics.jsonl"):
            self._append_rows()
        numbers = numbers_in(row)
        if self._bar is not None:
            losses = {name: numbers[key] for name, key in LOSSES.items() if key in numbers}
            if losses:
                text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
                self._bar.set_postfix_str(text, refresh=False)
        else:
            self.print_line(_summary(numbers, self.config.train.total_kimg))
        if self._tracker is not None:
            self._tracker.row(numbers, self.progress.images)

    def _append_rows(self) -> None:
        """Append all rows that the disk has not taken yet; where it is full in the middle of them, none of them."""
        with (self.folder / "metrics.jsonl").open("ab", buffering=0) as file:
            end = file.tell()
            data = "".join(self._unwritten).encode()
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
        self._unwritten.clear()

    def sheet(self, sheet: Image.Image) -> None:
        """Save a sample sheet as samples/NAME.png, named as a checkpoint of this position, and pass it on."""
        if not self.main:
            return
        name = f"samples/{checkpoint_name(self.progress.images)}.png"
        with self.writing(name):
            sheet.save(self.folder / name)
        if self._tracker is not None:
            self._tracker.sheet(sheet, self.progress.images)

    def evaluation(self, row: Mapping[str, object]) -> None:
        """Append an evaluation with its protocol to results.jsonl, and pass it on."""
        from hamgan.evaluation.report import append_row  # torch-fidelity is not needed to train

        if self.main:
            with self.writing("results.jsonl"):
                append_row(dict(row), self.folder / "results.jsonl")
            if self._tracker is not None:
                self._tracker.evaluations()

    def weights_written(self, images: int) -> None:
        """Pass the file of weights on where that is wanted and it is the best one so far; called in any thread."""
        best = next(iter(self.progress.ranking), None)
        if self._tracker is not None and self.config.log.artifact and best == checkpoint_name(images):
            # A file of its own: the next checkpoint replaces this one, perhaps before it has been sent.
            copy = temporary_name(self.folder / f"best_{self.weights}")
            try:
                shutil.copyfile(self.folder / self.weights, copy)
                self._tracker.weights(copy, images)
            except OSError as error:
                self.print_line(f"warning: {self.weights} is not uploaded: {error}")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Write RUN/NAME inside this context: a failure is a sentence, or a warning where the run is to go on."""
        try:
            yield
        except OSError as error:
            message = f"could not write {self.folder / name}: {error}"
            if self.config.checkpoint.on_full_disk == "stop":
                raise CheckpointError(message) from error
            self.print_line(f"warning: {message}")

    def close(self, finished: bool = True) -> None:
        """Finish the bar and the tracker, which gets less time when the run has been told to stop or has failed."""
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.close(SECONDS_TO_FINISH if finished else SECONDS_TO_FINISH / 6)


def keep_rows_until(path: Path, images: int) -> None:
    """Drop rows of a JSONL file whose ``kimg`` lies beyond a number of images, and a last line cut by a crash."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            kimg = json.loads(line)["kimg"]
            if kimg is None or kimg * 1000 <= images + 0.5:  # None: an evaluation of something without a position
                kept.append(line)
    write_atomically(path, "".join(line + "\n" for line in kept))


def _summary(row: Mapping[str, float], total_kimg: float) -> str:
    """Return the line that the screen shows of a row."""
    total = f"{total_kimg:g}"
    digits = max(1, len(total.partition(".")[2]))  # of a run of 0.16 kimg the end is not 0.2
    parts = [f"{row['kimg']:.{digits}f}/{total} kimg"]
    parts += [f"{key} {row[key]:.3f}" for key in SHOWN if key in row]
    parts += [f"lr {row['lr']:.3g}"] if "lr" in row else []
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    if "seconds_left" in row:
        parts.append(f"{duration(row['seconds_left'])} left")
    parts += [f"{key} {value:.4g}" for key, value in row.items() if key.startswith(SCORES)]
    return "  ".join(parts)
