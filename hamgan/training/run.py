"""Run the loop around the steps of any training, of a GAN or of a segmenter.

It resumes and saves, logs and evaluates at their intervals, stops on a signal and rolls back on an alarm.
"""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from accelerate import Accelerator

from hamgan.checkpoint import (
    Progress,
    RunCheckpoints,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    way_of_measuring,
)
from hamgan.checkpoint.state import TrainingState
from hamgan.config import RunConfig, save_config
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import from_main, world_size
from hamgan.distributed.stop_signals import StopSignals
from hamgan.errors import Collapse, Stopped
from hamgan.files import JsonObject, remove_leftovers, write_atomically
from hamgan.tracking.run_log import RunLog
from hamgan.training.compilation import explained_failures
from hamgan.training.divergence import Alarm
from hamgan.training.rollback import choose_checkpoint, commit_rollback, restore_earlier
from hamgan.training.run_folder import Differences, FolderLock, record_environment, record_overrides
from hamgan.training.setup import check_same_everywhere, crosses


class Batches(Protocol):
    """Describe a source of batches for one stream of data and noise."""

    def close(self) -> None:
        """Stop its workers."""


C = TypeVar("C", bound=RunConfig)
S = TypeVar("S", bound=TrainingState)
B = TypeVar("B", bound=Batches)


class Run(ABC, Generic[C, S, B]):
    """Hold a run: its training step, its progress and its outputs; subclasses implement one kind of training.

    Monitor, checkpoints, log and previews share one ``progress`` object, so a return to a checkpoint changes it for
    all.
    """

    config: C
    step: S
    accelerator: Accelerator
    progress: Progress
    log: RunLog
    checkpoints: RunCheckpoints

    @abstractmethod
    def begin(self) -> None:
        """Prepare a new run before its first step."""

    @abstractmethod
    def open_batches(self) -> B:
        """Start the batches of the stream ``progress.stream`` from the current position."""

    @abstractmethod
    def make_step(self, batches: B) -> None:
        """Make one step, update ``progress`` and log a row at its interval."""

    @abstractmethod
    def draw_sheet(self) -> None:
        """Draw and log a sheet; every process calls this."""

    @abstractmethod
    def evaluate(self) -> None:
        """Evaluate on all processes, log the numbers and store the score in ``progress``."""

    def open(
        self,
        overridden: Differences,
        class_names: list[str],
        open_log: Callable[[], RunLog],
        open_checkpoints: Callable[[RunLog], RunCheckpoints],
    ) -> None:
        """Lock the run folder, resume its run if there is one, and open log and checkpoints."""
        self.folder, self.signals = self.config.folder, StopSignals()
        self.lock = FolderLock(self.folder)
        self.lock.acquire()
        try:
            self._resume()
            if self.accelerator.is_main_process:
                self._prepare_folder(overridden, class_names)
        except BaseException:
            self.lock.release()
            raise
        self.accelerator.wait_for_everyone()
        self.log = open_log()
        self.checkpoints = open_checkpoints(self.log)
        if self.progress.images and self.accelerator.is_main_process:
            self.checkpoints.renew_weights()  # the run may have been killed after a checkpoint and before this

    def _resume(self) -> None:
        """Continue from the newest valid checkpoint, or begin a new run."""
        path = latest_checkpoint(self.folder / "checkpoints", self.accelerator.print)
        check_same_everywhere(f"in {self.folder} as newest checkpoint", path.name if path is not None else "none")
        if path is None:
            self.begin()
        else:
            self.progress.restore(load_checkpoint(path, self.step))
            self.accelerator.print(f"resuming from {path}")

    def _prepare_folder(self, overridden: Differences, class_names: list[str]) -> None:
        checkpoints = self.folder / "checkpoints"
        for folder in (self.folder, checkpoints, *list_checkpoints(checkpoints)):
            remove_leftovers(folder)
        record_overrides(self.folder, overridden, self.progress.images)
        save_config(self.config, self.folder / "config.yaml")
        write_atomically(self.folder / "classes.json", json.dumps(class_names))
        record_environment(self.folder, self.progress.images, world_size())

    def run(self) -> None:
        """Train until ``total_kimg``; raise `Stopped` on a signal, `Diverged` when the run cannot go on."""
        finished = False
        try:
            with FailureWatch(), self.signals:
                if self.progress.images >= self.total:
                    kimg = f"{self.progress.images / 1000:g} of {self.config.train.total_kimg:g} kimg"
                    self.log.print_line(f"already at {kimg}; nothing to do")
                while self.progress.images < self.total:
                    try:
                        self._train_stream()
                    except Collapse as collapse:
                        self._roll_back(collapse.reason)
                finished = True
        finally:
            self.checkpoints.close()
            self.log.close(finished)
            self.lock.release()

    @property
    def total(self) -> int:
        """Return the number of images of the whole run."""
        return round(self.config.train.total_kimg * 1000)

    def _train_stream(self) -> None:
        """Train to the end of the run with one stream of data and noise; raise `Collapse` when the monitor alarms."""
        config, progress = self.config, self.progress
        with explained_failures(), contextlib.closing(self.open_batches()) as batches:
            while progress.images < self.total:
                self.make_step(batches)
                with self.log.outside_training():
                    if self._passed(config.log.samples_every_kimg):
                        self.draw_sheet()
                    if evaluated := self._passed(config.eval.every_kimg):
                        self.evaluate()
                    if evaluated or self._passed(config.checkpoint.every_kimg):
                        self.checkpoints.save()
                self._stop_if_asked()
            self.checkpoints.save()
            self.checkpoints.wait_until_written(strict=True)

    def _passed(self, kimg: float) -> bool:
        """Return whether the step just made passed a multiple of an interval."""
        return crosses(self.progress.images - self.config.images_per_step, self.progress.images, kimg)

    def reports_next(self) -> bool:
        """Return whether a row is logged after the next step."""
        before, after = self.progress.images, self.progress.images + self.config.images_per_step
        return crosses(before, after, self.config.log.every_kimg) or after >= self.total

    def compare_scores_of(self, row: JsonObject) -> None:
        """Print a line if an evaluation's protocol differs from the previous ones, whose scores are then ignored."""
        if self.progress.measure_by(way_of_measuring(row)):
            self.log.print_line("the protocol of evaluations has changed: the best checkpoint is chosen anew")

    def act_on(self, alarm: Alarm | None) -> None:
        """React to the main process's alarm by a rollback, or by a warning if `monitor.action` is warn."""
        alarm = from_main(alarm)
        if alarm is None:
            return
        if self.config.monitor.action == "warn" and not alarm.broken:
            self.log.print_line(f"warning: at {self.progress.images / 1000:g} kimg {alarm.reason}")
        else:
            raise Collapse(alarm.reason)

    def _roll_back(self, reason: str) -> None:
        """Return to the last good checkpoint, then use other data and noise; raises `Diverged` if there is none."""
        settings, what = self.config.monitor, f"{reason} at {self.progress.images / 1000:g} kimg"
        self.checkpoints.wait_until_written(strict=False)
        folder = self.folder / "checkpoints"
        target = choose_checkpoint(settings, folder, self.progress, what, self.log.print_line)
        restore_earlier(target, self.step, self.progress, reason, settings.lr_factor)
        if self.accelerator.is_main_process:
            self.checkpoints.renew_weights()  # first: a run killed in between must come here again
            commit_rollback(self.folder, target, self.progress)
        self.log.drop_later_rows()
        self.log.print_line(f"rolled back to {target.name} (rollback {self.progress.stream}): {what}")
        self.accelerator.wait_for_everyone()

    def _stop_if_asked(self) -> None:
        """Stop all processes after the same step, whichever of them got the signal."""
        stop, failed = self.signals.poll(self.checkpoints.failed)
        if failed:
            self.checkpoints.wait_until_written(strict=False)
        if stop:
            self.checkpoints.save()
            self.checkpoints.wait_until_written(strict=True)
            raise Stopped(f"checkpoint saved at {self.progress.images / 1000:g} kimg; the same command resumes")
