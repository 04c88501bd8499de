"""Feed wandb or TensorBoard in a thread of its own: an absent, broken or slow one never stops or slows a run."""

import json
import queue
import threading
from collections.abc import Callable, Mapping

import numpy as np
from accelerate import Accelerator
from PIL import Image

from hamgan.config import Config, config_to_dict
from hamgan.tracking.panels import panel_of

# Rows and sheets that wait for a slow tracker; more are dropped, metrics.jsonl has them all.
QUEUE_LENGTH = 256
SECONDS_TO_FINISH = 60.0


class Tracker:
    """Pass rows and sheets on to the tracker of the configuration.

    Everything, its start included, happens in a background thread behind a bounded queue. The first failure is warned
    about and the tracker left alone from there.
    """

    def __init__(self, accelerator: Accelerator, config: Config, warn: Callable[[str], None]) -> None:
        self.accelerator, self.config, self.warn = accelerator, config, warn
        self.name = config.log.tracker
        self.failed = False
        self._dropped = 0
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def row(self, numbers: Mapping[str, float], images: int) -> None:
        """Pass on the numbers of a row."""
        self._submit(lambda: self._log(numbers, images))

    def sheet(self, sheet: Image.Image, images: int) -> None:
        """Pass on a sample sheet."""
        self._submit(lambda: self._log_sheet(sheet, images))

    def close(self, seconds: float = SECONDS_TO_FINISH) -> None:
        """Let the tracker finish; one that takes longer than this many seconds is left behind."""
        if not self.failed:
            self._submit(None)
            self._thread.join(seconds)
            if self._thread.is_alive():
                self.warn(f"warning: {self.name} did not finish within {seconds:g} s and is left behind")

    def _submit(self, action: Callable[[], None] | None) -> None:
        if self.failed:
            return
        try:
            self._waiting.put_nowait(action)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                self.warn(f"warning: {self.name} is too slow; rows it has no room for are in metrics.jsonl only")

    def _work(self) -> None:
        try:
            self._start()
            while (action := self._waiting.get()) is not None:
                action()
            for tracker in self.accelerator.trackers:  # not `end_training`, which ends the processes' group as well
                tracker.finish()
        except Exception as error:
            self.failed = True
            self.warn(f"warning: {self.name} failed and is left alone from here: {error}")

    def _start(self) -> None:
        options = {}
        if self.name == "wandb":
            options = {"wandb": {"name": self.config.name, "dir": str(self.config.folder), "mode": _wandb_mode()}}
        flat = {key: json.dumps(value) for key, value in config_to_dict(self.config).items()}
        self.accelerator.init_trackers(self.config.log.project, config=flat, init_kwargs=options)
        if not self.accelerator.trackers:  # Accelerate leaves out what is not installed, without a word
            raise RuntimeError(f"{self.name} is not installed")
        if self.name == "wandb":
            # Its own step may only rise, but a run that rolls back takes some steps twice.
            self.accelerator.trackers[0].tracker.define_metric("*", step_metric="kimg")

    def _log(self, numbers: Mapping[str, float], images: int) -> None:
        grouped = {f"{panel_of(name) or 'run'}/{name}" if name != "kimg" else name: v for name, v in numbers.items()}
        self.accelerator.log(grouped, step=None if self.name == "wandb" else images)

    def _log_sheet(self, sheet: Image.Image, images: int) -> None:
        for tracker in self.accelerator.trackers:
            if self.name == "wandb":
                tracker.log_images({"samples": [sheet]})
            else:
                tracker.log_images({"samples": np.asarray(sheet)[None]}, step=images, dataformats="NHWC")


def _wandb_mode() -> str:
    """Return ``online`` where somebody is logged in."""
    import wandb

    # Not logged in means offline files to sync later, never a prompt that waits for ever.
    return "online" if wandb.api.api_key else "offline"
