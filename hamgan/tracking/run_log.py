"""Write what a run reports: metrics.jsonl and sample sheets, lines or a bar on the screen, a tracker when chosen."""

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from hamgan.checkpoint import Progress, checkpoint_name
from hamgan.config import Config
from hamgan.errors import CheckpointError
from hamgan.files import write_atomically
from hamgan.tracking.trackers import SECONDS_TO_FINISH, Tracker
from hamgan.tracking.utilisation import Arithmetic, count_arithmetic


class RunLog:
    """Keep rows and sheets of a run, where its ``progress`` stands; the main process alone writes.

    Rows of a resumed run that lie beyond its checkpoint are dropped first: they are about to be made again.
    """

    def __init__(self, config: Config, accelerator: Accelerator, progress: Progress) -> None:
        self.config, self.folder, self.progress = config, config.folder, progress
        self.main = accelerator.is_main_process
        self._started, self._images_made = time.perf_counter(), 0
        self.steps_made = 0
        self._tracker: Tracker | None = None
        self._bar: tqdm[None] | None = None
        self._unwritten: list[str] = []
        self._arithmetic: Arithmetic | None = None
        if not self.main:
            return
        if accelerator.device.type != "cpu":
            self._arithmetic = count_arithmetic(config, accelerator)
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        self.drop_later_rows()
        if sys.stderr.isatty():
            total, done = config.train.total_kimg, progress.images / 1000
            self._bar = tqdm(total=total, initial=done, unit="kimg", dynamic_ncols=True, smoothing=0.05)
        if config.log.tracker != "none":
            self._tracker = Tracker(accelerator, config, self.print_line)

    def drop_later_rows(self) -> None:
        """Drop the rows that lie beyond the run's position, after it has gone back."""
        if self.main:
            for name in ("metrics.jsonl", "results.jsonl"):
                keep_rows_until(self.folder / name, self.progress.images)

    def print_line(self, text: str) -> None:
        """Print a line above the progress bar; where nobody can read it (a full disk), the run goes on without."""
        if self.main:
            with contextlib.suppress(OSError):
                tqdm.write(text, file=sys.stderr)
                sys.stderr.flush()

    def count_step(self, images: int) -> None:
        """Count the images of a step that has just been made, and move the progress bar to the run's position."""
        self._images_made += images
        self.steps_made += 1
        if self._bar is not None:
            self._bar.update(self.progress.images / 1000 - self._bar.n)

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
        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        if self._bar is not None:
            shown = {key: f"{numbers[key]:.3g}" for key in ("d_loss", "g_loss", "images_per_second") if key in numbers}
            self._bar.set_postfix(shown, refresh=False)
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
    parts = [f"{row['kimg']:.1f}/{total_kimg:g} kimg"]
    parts += [f"{key} {row[key]:.3f}" for key in ("d_loss", "g_loss", "logits_real", "logits_fake") if key in row]
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    if "seconds_left" in row:
        parts.append(f"{duration(row['seconds_left'])} left")
    parts += [f"{key} {value:.4g}" for key, value in row.items() if key.startswith(("fid", "inception_score"))]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return ``3725`` seconds as ``1:02:05``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
