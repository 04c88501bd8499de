"""Log a run: metrics.jsonl and sample sheets, lines or a bar on the screen, and a tracker if chosen."""

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
from hamgan.tracking.trackers import SECONDS_TO_FINISH, Tracker, number_entries
from hamgan.tracking.utilisation import Arithmetic

LOSSES = {"D": "d_loss", "G": "g_loss", "loss": "loss"}
"""Numbers on a progress bar: name on the bar -> name in the row."""
SHOWN = ("d_loss", "g_loss", "logits_real", "logits_fake", "loss", "accuracy")
"""Numbers of a row that are printed."""
SCORES = ("fid", "inception_score", "miou", "macc", "aacc")
"""Prefixes of the names of scores, which are printed as well."""


class RunLog:
    """Log rows and sheets of a run at the position of ``progress``; only the main process writes.

    ``weights`` is the name of the resulting file in the run folder, ``arithmetic`` converts images/s to FLOP/s. Rows of
    a resumed run after its checkpoint are dropped first, as they will be made again.
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
        self._images_made = self.steps_made = 0
        self._seconds_outside = 0.0
        self._start = self._after_first_step = self._previous_row = self._mark()
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
        """Drop the rows after the run's position, when it was rolled back."""
        if self.main:
            for name in ("metrics.jsonl", "results.jsonl"):
                keep_rows_until(self.folder / name, self.progress.images)
        if self._tracker is not None:
            self._tracker.roll_back(self.progress.images)

    def print_line(self, text: str) -> None:
        """Print a line above the progress bar; errors of the output, such as a full disk, are ignored."""
        if self.main:
            with contextlib.suppress(OSError):
                ProgressBar.write(text, file=sys.stderr)
                sys.stderr.flush()

    def count_step(self, images: int) -> None:
        """Count the images of the last step, and move the progress bar to the run's position."""
        self._images_made += images
        self.steps_made += 1
        if self.steps_made == 1:
            self._after_first_step = self._previous_row = self._mark()
        if self._bar is not None:
            self._bar.update(self.progress.images - self._bar.n)

    @contextlib.contextmanager
    def outside_training(self) -> Iterator[None]:
        """Leave the time in this context, such as that of an evaluation, out of the speed."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds_outside += time.perf_counter() - started

    def speed(self) -> dict[str, float]:
        """Return images per second since the previous row, seconds so far and to the end, a GPU's GiB and FLOP/s.

        The first step, which may compile, counts only while there is no other. Seconds to the end allow for as many
        evaluations and sheets as there were so far.
        """
        first = self.steps_made == 1
        images, training, _ = self._since(self._start if first else self._previous_row)
        speed = images / training
        images, _, all_seconds = self._since(self._start if first else self._after_first_step)
        left = max(0.0, self.config.train.total_kimg * 1000 - self.progress.images) * all_seconds / images
        self._previous_row = self._mark()
        found = {"images_per_second": speed, "seconds": self.progress.seconds, "seconds_left": left}
        if torch.cuda.is_available():
            found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self._arithmetic is not None:
            found |= self._arithmetic.at(speed)
        return found

    def _mark(self) -> tuple[int, float, float]:
        """Return images, seconds in training and seconds in all, to count from here."""
        now = time.perf_counter()
        return self._images_made, now - self._seconds_outside, now

    def _since(self, mark: tuple[int, float, float]) -> tuple[int, float, float]:
        images, training, all_seconds = self._mark()
        return images - mark[0], training - mark[1], all_seconds - mark[2]

    def row(self, values: Mapping[str, object]) -> None:
        """Append one row to metrics.jsonl, print it and send it to the tracker."""
        if not self.main:
            return
        row = {"kimg": self.progress.images / 1000, **values}
        self._unwritten.append(json.dumps(row) + "\n")
        with self.writing("metrics.jsonl"):
            self._append_rows()
        numbers = number_entries(row)
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
        """Append all pending rows to the file, or none of them if the disk is full."""
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
        """Save a sample sheet as samples/NAME.png, NAME as of a checkpoint here, and send it to the tracker."""
        if not self.main:
            return
        name = f"samples/{checkpoint_name(self.progress.images)}.png"
        with self.writing(name):
            sheet.save(self.folder / name)
        if self._tracker is not None:
            self._tracker.sheet(sheet, self.progress.images)

    def evaluation(self, row: Mapping[str, object]) -> None:
        """Append an evaluation with its protocol to results.jsonl, and send it to the tracker."""
        from hamgan.evaluation.report import append_row  # imported here: training does not need torch-fidelity

        if self.main:
            with self.writing("results.jsonl"):
                append_row(dict(row), self.folder / "results.jsonl")
            if self._tracker is not None:
                self._tracker.evaluations()

    def weights_written(self, images: int) -> None:
        """Upload the file of weights if `log.artifact` is set and it is the best so far; callable from any thread."""
        best = next(iter(self.progress.ranking), None)
        if self._tracker is not None and self.config.log.artifact and best == checkpoint_name(images):
            # A copy, since the next checkpoint may replace the file before it is sent.
            copy = temporary_name(self.folder / f"best_{self.weights}")
            try:
                shutil.copyfile(self.folder / self.weights, copy)
                self._tracker.weights(copy, images)
            except OSError as error:
                self.print_line(f"warning: {self.weights} is not uploaded: {error}")

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Handle errors of writing RUN/NAME in this context: an error, or a warning if the run should go on."""
        try:
            yield
        except OSError as error:
            message = f"could not write {self.folder / name}: {error}"
            if self.config.checkpoint.on_full_disk == "stop":
                raise CheckpointError(message) from error
            self.print_line(f"warning: {message}")

    def close(self, finished: bool = True) -> None:
        """Close the bar and the tracker, which gets less time if the run was stopped or has failed."""
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.close(SECONDS_TO_FINISH if finished else SECONDS_TO_FINISH / 6)


def keep_rows_until(path: Path, images: int) -> None:
    """Drop the rows of a JSONL file after a number of images, and a last line that a crash has cut."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            kimg = json.loads(line)["kimg"]
            if kimg is None or kimg * 1000 <= images + 0.5:  # None: an evaluation without a position in the run
                kept.append(line)
    write_atomically(path, "".join(line + "\n" for line in kept))


def _summary(row: Mapping[str, float], total_kimg: float) -> str:
    """Return the printed line for a row."""
    total = f"{total_kimg:g}"
    digits = max(1, len(total.partition(".")[2]))  # so that the end of a run of 0.16 kimg is not shown as 0.2
    parts = [f"{row['kimg']:.{digits}f}/{total} kimg"]
    parts += [f"{key} {row[key]:.3f}" for key in SHOWN if key in row]
    parts += [f"lr {row['lr']:.3g}"] if "lr" in row else []
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    if "seconds_left" in row:
        parts.append(f"{duration(row['seconds_left'])} left")
    parts += [f"{key} {value:.4g}" for key, value in row.items() if key.startswith(SCORES)]
    return "  ".join(parts)
