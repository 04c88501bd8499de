"""The training loop: set-up, then steps of D and G, the average of G, logging, samples, evaluation, checkpoints."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hamgan.checkpoint import (
    Progress,
    checkpoint_name,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_leftovers,
)
from hamgan.checkpoint.manager import Saving
from hamgan.checkpoint.warm_start import initialise_from, parse_class_mapping
from hamgan.config import Config, save_config, validate
from hamgan.data import BatchLoader, check_source, open_source
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import from_main
from hamgan.distributed.stop_signals import StopSignals
from hamgan.errors import Collapse, Stopped
from hamgan.files import write_atomically
from hamgan.networks import build_networks
from hamgan.tracking.network_metrics import network_metrics
from hamgan.tracking.run_log import RunLog, duration
from hamgan.training.batches import Batches
from hamgan.training.divergence import Alarm, Monitor
from hamgan.training.noise import Noise
from hamgan.training.preview import Observer
from hamgan.training.rollback import agreed_target, commit_rollback, rollback_record
from hamgan.training.run_folder import Differences, FolderLock, check_same_run, record_environment, record_overrides
from hamgan.training.setup import (
    crosses,
    describe_run,
    evaluation_metrics,
    learning_rate_factor,
    make_accelerator,
    micro_batch,
    with_classes,
)
from hamgan.training.step import GanStep


class Training:
    """A run: its data, its step, where it stands and what it writes.

    ``override`` names configuration keys that may differ from those that the run was started with.
    """

    def __init__(self, config: Config, override: Sequence[str] = ()) -> None:
        validate(config)
        self.accelerator = make_accelerator(config)
        with FailureWatch(self.accelerator):
            self._set_up(config, override)

    def _set_up(self, config: Config, override: Sequence[str]) -> None:
        accelerator = self.accelerator
        self.source = open_source(config.data.source, config.data.split, config.resolution)
        check_source(self.source)
        self.config = config = with_classes(config, self.source)
        self.folder = config.folder
        overridden = check_same_run(self.folder, config, override)
        self.micro_batch = micro_batch(config, accelerator.num_processes)
        generator, discriminator = build_networks(config)
        self.step = GanStep(generator, discriminator, config.train, accelerator)
        self.observer = Observer(config, self.source, self.step)
        self.signals = StopSignals(accelerator)
        self.progress = Progress()
        self.lock = FolderLock(self.folder)
        problem = from_main(self.lock.acquire() if accelerator.is_main_process else None)
        if problem is not None:
            raise problem
        try:
            self._resume()
            if accelerator.is_main_process:
                self._prepare_folder(overridden)
        except BaseException:
            self.lock.release()
            raise
        self.noise = Noise(
            config.seed, accelerator.device, self.micro_batch, accelerator.process_index, accelerator.num_processes
        )
        self.monitor = Monitor(config.monitor, self.progress.monitor)
        accelerator.wait_for_everyone()
        self.log = RunLog(self.folder, config, accelerator, self.progress.images)
        self.saving = Saving(config, self.source.class_names, self.step, self.log.say)
        if self.progress.images and accelerator.is_main_process:
            self.saving.renew_generator(self.progress)
        for line in describe_run(config, self.source, self.step, self.noise):
            self.log.say(line)

    @property
    def images_per_step(self) -> int:
        """Real images that D sees per step of G."""
        return self.config.train.batch_size * self.config.train.discriminator_steps

    def _resume(self) -> None:
        """Continue from the newest valid checkpoint; a new run may start from another model's weights."""
        say = self.accelerator.print
        path = latest_checkpoint(self.folder / "checkpoints", say)
        if path is not None:
            self.progress = load_checkpoint(path, self.step)
            say(f"resuming from {path}")
        elif self.config.train.init_from:
            classes = parse_class_mapping(self.config.train.init_classes, self.step.generator.num_classes)
            found = initialise_from(
                self.step.networks, Path(self.config.train.init_from), classes=classes, seed=self.config.seed
            )
            for name, initialisation in found.items():
                say(initialisation.summary(name))

    def _prepare_folder(self, overridden: Differences) -> None:
        checkpoints = self.folder / "checkpoints"
        for folder in (self.folder, checkpoints, *list_checkpoints(checkpoints)):
            remove_leftovers(folder)
        if overridden:
            record_overrides(self.folder, overridden, self.progress.images)
        save_config(self.config, self.folder / "config.yaml")
        write_atomically(self.folder / "classes.json", json.dumps(self.source.class_names))
        record_environment(self.folder, self.progress.images, self.accelerator.num_processes)

    def run(self) -> None:
        """Train until ``total_kimg``; returns early by `Stopped` (signal) or `Diverged`."""
        finished = False
        try:
            with FailureWatch(self.accelerator), self.signals:
                if self.progress.images >= self._total:
                    kimg = f"{self.progress.images / 1000:g} of {self.config.train.total_kimg:g} kimg"
                    self.log.say(f"already at {kimg}; nothing to do")
                while self.progress.images < self._total:
                    try:
                        self._advance()
                    except Collapse as collapse:
                        self._roll_back(collapse.reason)
                finished = True
        finally:
            self.saving.close()
            self.log.close(finished)
            self.lock.release()

    @property
    def _total(self) -> int:
        return round(self.config.train.total_kimg * 1000)

    def _advance(self) -> None:
        """Steps to the end of the run, of one stream of data and noise."""
        train, log = self.config.train, self.config.log
        self.noise = replace(self.noise, stream=self.progress.stream)
        loader = self._loader()
        batches = Batches(self.config, loader, self.noise, self.step)
        try:
            while self.progress.images < self._total:
                started = time.perf_counter()
                report = self._due(log.every_kimg) or self.progress.images + self.images_per_step >= self._total
                self.step.scale_learning_rates(self._lr_factor(self.progress.images))
                for index in range(train.discriminator_steps):
                    self.step.discriminator_step(batches.for_discriminator(self.progress.images, index), report)
                self.step.generator_step(batches.for_generator(self.progress.images), report)
                self.progress.images += self.images_per_step
                self.progress.steps += 1
                self.step.update_average(self.progress.images)
                self.log.advance(self.images_per_step)
                if report:
                    self._log_row()
                self.progress.seconds += time.perf_counter() - started
                if self._passed(log.samples_every_kimg):
                    self._sheet()
                evaluated = self._passed(self.config.eval.every_kimg)
                if evaluated:
                    self._evaluate()
                if evaluated or self._passed(self.config.checkpoint.every_kimg):
                    self.saving.save(self.progress)
                self._stop_if_asked()
            self.saving.save(self.progress)
            self.saving.settle(strict=True)
        finally:
            loader.close()

    def _loader(self) -> BatchLoader:
        return BatchLoader(
            self.source,
            seed=self.config.seed,
            stream=self.progress.stream,
            start=self.progress.images,
            batch_size=self.micro_batch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            prefetch=self.config.data.prefetch,
            pin=self.accelerator.device.type == "cuda",
        )

    def _lr_factor(self, images: int) -> float:
        return learning_rate_factor(self.config.train, images) * self.progress.lr_factor

    def _due(self, kimg: float) -> bool:
        """Whether the step about to run passes a multiple of an interval."""
        return crosses(self.progress.images, self.progress.images + self.images_per_step, kimg)

    def _passed(self, kimg: float) -> bool:
        """Whether the step just made passed a multiple of an interval."""
        return crosses(self.progress.images - self.images_per_step, self.progress.images, kimg)

    def _log_row(self) -> None:
        metrics: dict[str, Any] = {name: float(value) for name, value in self.step.take_metrics().items()}
        if self.accelerator.scaler is not None:  # it skips steps whose gradients have overflowed, as it should
            metrics = {name: v for name, v in metrics.items() if "gradient" not in name or math.isfinite(v)}
        train = self.config.train
        factor = self._lr_factor(self.progress.images - self.images_per_step)
        metrics |= {"g_lr": train.generator_lr * factor, "d_lr": train.discriminator_lr * factor}
        metrics |= network_metrics(self.step.generator, self.step.discriminator)
        alarm = self.monitor.judge(metrics)
        if alarm is None or not alarm.broken:
            self.log.row(self.progress.images, metrics | self.log.speed(self.progress))
        self._heed(alarm)

    def _sheet(self) -> None:
        alarm = None
        if self.accelerator.is_main_process:
            sheet, diversity = self.observer.sheet(self.progress.images)
            self.log.sheet(checkpoint_name(self.progress.images), sheet, self.progress.images)
            alarm = self.monitor.judge_sheet(diversity)
        self._heed(alarm)

    def _evaluate(self) -> None:
        """FID and the like on all processes; the checkpoint is kept while it is among the best."""
        from hamgan.evaluation.report import append_row

        started = time.perf_counter()
        row = self.observer.evaluate(self.progress.images)
        seconds = time.perf_counter() - started
        self.progress.evaluation_seconds += seconds
        self.log.row(self.progress.images, evaluation_metrics(row, seconds, self.progress))
        share = self.progress.evaluation_share
        self.log.say(f"evaluation: {duration(seconds)}; evaluations are {share:.1%} of the run's time so far")
        if self.accelerator.is_main_process:
            with self.log.disk("results.jsonl"):
                append_row(row, self.folder / "results.jsonl")
        fid = next((value for key, value in row.items() if key.startswith("fid")), None)
        if fid is not None:
            alarm = self.monitor.judge_fid(fid, self.progress.fid.values())
            self.progress.fid[checkpoint_name(self.progress.images)] = fid
            self._heed(alarm)

    def _heed(self, alarm: Alarm | None) -> None:
        """Act on the main process's alarm: by going back, or by a warning where that is all that is wanted."""
        alarm = from_main(alarm)
        if alarm is None:
            return
        if self.config.monitor.action == "warn" and not alarm.broken:
            self.log.say(f"warning: at {self.progress.images / 1000:g} kimg {alarm.reason}")
        else:
            raise Collapse(alarm.reason)

    def _roll_back(self, reason: str) -> None:
        """Return to the last good checkpoint, to go on with other data and noise; `Diverged` when that is not to be."""
        settings, checkpoints = self.config.monitor, self.folder / "checkpoints"
        what = f"{reason} at {self.progress.images / 1000:g} kimg"
        self.saving.settle(strict=False)
        target = agreed_target(self.accelerator, settings, checkpoints, self.progress, what, self.log.say)
        record = rollback_record(self.progress, target, reason, settings.lr_factor)
        self.progress = replace(
            load_checkpoint(target, self.step),
            rollbacks=[*self.progress.rollbacks, record],
            seconds=self.progress.seconds,
            evaluation_seconds=self.progress.evaluation_seconds,
        )
        self.monitor.memory = self.progress.monitor
        self.saving.images = self.progress.images
        if self.accelerator.is_main_process:
            self.saving.write_generator()  # first: killed in between, the run comes here again and not past it
            commit_rollback(self.folder, target, self.progress)
        self.log.rewind(self.progress.images)
        self.log.say(f"rolled back to {target.name} (rollback {self.progress.stream}): {what}")
        self.accelerator.wait_for_everyone()

    def _stop_if_asked(self) -> None:
        """All processes stop after the same step, whichever of them the signal reached first."""
        stop, failed = self.signals.poll(self.saving.failed)
        if failed:
            self.saving.settle(strict=False)
        if stop:
            self.saving.save(self.progress)
            self.saving.settle(strict=True)
            raise Stopped(f"checkpoint saved at {self.progress.images / 1000:g} kimg; the same command resumes")


def train(config: Config, override: Sequence[str] = ()) -> None:
    """Train a configuration to its end, resuming whatever its run folder holds; see `Training`."""
    Training(config, override).run()
