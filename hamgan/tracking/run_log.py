"""What a run writes about itself: metrics.jsonl and sample sheets always, the screen, and a tracker when chosen."""

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from hamgan.checkpoint import Progress
from hamgan.config import Config
from hamgan.errors import CheckpointError
from hamgan.files import write_atomically
from hamgan.tracking.trackers import SECONDS_TO_FINISH, Tracker


class RunLog:
    """Rows and sheets of a run, written by the main process only.

    Rows of a resumed run that lie beyond its checkpoint are dropped first: they are about to be made again.
    """

    def __init__(self, folder: Path, config: Config, accelerator: Accelerator, images: int) -> None:
        self.folder, self.config = folder, config
        self.main = accelerator.is_main_process
        self.started = time.perf_counter()
        self.first_images = images
        self._tracker: Tracker | None = None
        self._bar: tqdm[Any] | None = None
        self._unwritten: list[str] = []
        if not self.main:
            return
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        self._drop_rows_after(images)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=config.train.total_kimg, initial=images / 1000, unit="kimg", dynamic_ncols=True, smoothing=0.05
            )
        if config.log.tracker != "none":
            self._tracker = Tracker(accelerator, config, folder, self.say)

    def _drop_rows_after(self, images: int) -> None:
        for name in ("metrics.jsonl", "results.jsonl"):
            keep_rows_until(self.folder / name, images)

    def rewind(self, images: int) -> None:
        """Go back to an earlier position, as a resumed run would."""
        if self.main:
            self._drop_rows_after(images)
        # Speed counts from here: what has been thrown away was no progress.
        self.started, self.first_images = time.perf_counter(), images
        if self._bar is not None:
            self._bar.n = images / 1000
            self._bar.refresh()

    def say(self, text: str) -> None:
        """Print a line above the progress bar; where nobody can read it (a full disk), the run goes on without."""
        if self.main:
            with contextlib.suppress(OSError):
                tqdm.write(text, file=sys.stderr)
                sys.stderr.flush()

    def advance(self, images: int) -> None:
        """Move the progress bar."""
        if self._bar is not None:
            self._bar.update(images / 1000)

    def speed(self, progress: Progress) -> dict[str, float]:
        """Images per second since the start of this process, seconds over all restarts, seconds to the end, memory."""
        elapsed = time.perf_counter() - self.started
        speed = (progress.images - self.first_images) / elapsed
        left = max(0.0, self.config.train.total_kimg * 1000 - progress.images) / speed
        found = {"images_per_second": speed, "seconds": progress.seconds, "seconds_left": left}
        if torch.cuda.is_available():
            found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return found

    def row(self, images: int, values: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl, show it and pass it on."""
        if not self.main:
            return
        row = {"kimg": images / 1000} | values
        self._unwritten.append(json.dumps(row) + "\n")
        with self.disk("metrics.jsonl"):
            self._append_rows()
        if self._bar is not None:
            shown = {key: f"{row[key]:.3g}" for key in ("d_loss", "g_loss", "images_per_second") if key in row}
            self._bar.set_postfix(shown, refresh=False)
        else:
            self.say(_line(row, self.config.train.total_kimg))
        if self._tracker is not None:
            self._tracker.row(row, images)

    def _append_rows(self) -> None:
        """All rows that the disk has not taken yet; where it is full in the middle of them, as if none were written."""
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

    def sheet(self, name: str, sheet: Image.Image, images: int) -> None:
        """Save a sample sheet as samples/NAME.png and pass it on."""
        if not self.main:
            return
        with self.disk(f"samples/{name}.png"):
            sheet.save(self.folder / "samples" / f"{name}.png")
        if self._tracker is not None:
            self._tracker.sheet(sheet, images)

    @contextlib.contextmanager
    def disk(self, name: str) -> Iterator[None]:
        """Around writing RUN/NAME: a failure is a sentence, or a warning where the run is to go on."""
        try:
            yield
        except OSError as error:
            message = f"could not write {self.folder / name}: {error}"
            if self.config.checkpoint.on_full_disk == "stop":
                raise CheckpointError(message) from error
            self.say(f"warning: {message}")

    def close(self, finished: bool = True) -> None:
        """Finish the bar and the tracker, which gets less time when the run has been told to stop or has failed."""
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.close(SECONDS_TO_FINISH if finished else SECONDS_TO_FINISH / 6)


def keep_rows_until(path: Path, images: int) -> None:
    """Drop rows of a JSONL file whose ``kimg`` lies beyond so many images, and a last line cut by a crash."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            kimg = json.loads(line)["kimg"]
            if kimg is None or kimg * 1000 <= images + 0.5:  # None: an evaluation of something without a position
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    write_atomically(path, "".join(line + "\n" for line in kept))


def _line(row: dict[str, Any], total_kimg: float) -> str:
    parts = [f"{row['kimg']:.1f}/{total_kimg:g} kimg"]
    parts += [f"{key} {row[key]:.3f}" for key in ("d_loss", "g_loss", "logits_real", "logits_fake") if key in row]
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    if "seconds_left" in row:
        parts.append(f"{duration(row['seconds_left'])} left")
    parts += [f"{key} {value:.4g}" for key, value in row.items() if key.startswith(("fid", "inception_score"))]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``3725`` seconds as ``1:02:05``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
