"""What a run writes about itself: metrics.jsonl always, the screen, and wandb or TensorBoard when chosen."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from hamgan.checkpoint import Progress, write_atomically
from hamgan.config import Config, config_to_dict


class RunLog:
    """Rows and sheets of a run, written by the main process only.

    Rows of a resumed run that lie beyond its checkpoint are dropped first: they are about to be made again.
    """

    def __init__(self, folder: Path, config: Config, accelerator: Accelerator, images: int) -> None:
        self.folder, self.config, self.accelerator = folder, config, accelerator
        self.main = accelerator.is_main_process
        self.started = time.perf_counter()
        self.first_images = images
        self._tracker_failed = False
        self._bar: tqdm[Any] | None = None
        if not self.main:
            return
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        keep_rows_until(folder / "metrics.jsonl", images)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=config.train.total_kimg, initial=images / 1000, unit="kimg", dynamic_ncols=True, smoothing=0.05
            )
        if config.log.tracker != "none":
            self._guarded(self._start_tracker)

    def _start_tracker(self) -> None:
        name = self.config.log.tracker
        options = {"wandb": {"name": self.config.name, "dir": str(self.folder), "mode": _wandb_mode()}}
        flat = {key: json.dumps(value) for key, value in config_to_dict(self.config).items()}
        chosen = {name: options[name]} if name in options else {}
        self.accelerator.init_trackers(self.config.log.project, config=flat, init_kwargs=chosen)
        if not self.accelerator.trackers:  # Accelerate leaves out what is not installed, without a word
            raise RuntimeError(f"{name} is not installed")

    def _guarded(self, action: Any, *arguments: Any, **options: Any) -> None:
        """A tracker that is absent, offline or broken never stops a run: one warning, then it is left alone."""
        if self._tracker_failed:
            return
        try:
            action(*arguments, **options)
        except Exception as error:
            self._tracker_failed = True
            self.say(f"warning: {self.config.log.tracker} failed and is left alone from here: {error}")

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.main:
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
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._bar is not None:
            shown = {key: f"{row[key]:.3g}" for key in ("d_loss", "g_loss", "images_per_second") if key in row}
            self._bar.set_postfix(shown, refresh=False)
        else:
            self.say(_line(row, self.config.train.total_kimg))
        if self.config.log.tracker != "none":
            numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
            self._guarded(self.accelerator.log, numbers, step=images)

    def sheet(self, name: str, sheet: Image.Image, images: int) -> None:
        """Save a sample sheet as samples/NAME.png and pass it on."""
        if not self.main:
            return
        sheet.save(self.folder / "samples" / f"{name}.png")
        if self.config.log.tracker != "none":
            self._guarded(self._track_sheet, sheet, images)

    def _track_sheet(self, sheet: Image.Image, images: int) -> None:
        import numpy as np

        for tracker in self.accelerator.trackers:
            if tracker.name == "wandb":
                tracker.log_images({"samples": [sheet]}, step=images)
            else:
                tracker.log_images({"samples": np.asarray(sheet)[None]}, step=images, dataformats="NHWC")

    def close(self) -> None:
        """Finish the bar and the trackers."""
        if self._bar is not None:
            self._bar.close()
        if self.config.log.tracker != "none":
            self._guarded(self.accelerator.end_training)


def keep_rows_until(path: Path, images: int) -> None:
    """Drop rows of a JSONL file whose ``kimg`` lies beyond so many images, and a last line cut by a crash."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["kimg"] * 1000 <= images + 0.5:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(line + "\n" for line in kept))


def _wandb_mode() -> str:
    import wandb

    # Not logged in means offline files to sync later, never a prompt that waits for ever.
    return "online" if wandb.api.api_key else "offline"


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
