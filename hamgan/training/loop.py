"""Train: set a run up, then make steps of D and G with all that is due in between, or go back to a checkpoint."""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hamgan.checkpoint import (
    CheckpointManager,
    Progress,
    checkpoint_name,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
)
from hamgan.checkpoint.warm_start import initialise_from, parse_class_mapping
from hamgan.config import Config, TrainConfig, save_config, validate
from hamgan.data import check_source, open_source
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import from_main, rank, world_size
from hamgan.distributed.stop_signals import StopSignals
from hamgan.errors import Collapse, Stopped
from hamgan.files import remove_leftovers, write_atomically
from hamgan.networks import build_networks
from hamgan.progress import duration
from hamgan.tracking.network_metrics import Metrics, read_metrics
from hamgan.tracking.run_log import RunLog
from hamgan.training.batches import Batches
from hamgan.training.divergence import Alarm, Monitor
from hamgan.training.noise import Noise
from hamgan.training.preview import Preview, evaluation_metrics
from hamgan.training.rollback import choose_checkpoint, commit_rollback, restore_earlier
from hamgan.training.run_folder import (
    Differences,
    FolderLock,
    check_same_run,
    describe_length,
    record_environment,
    record_overrides,
)
from hamgan.training.schedules import scheduled_values, settings_at
from hamgan.training.setup import (
    check_same_everywhere,
    crosses,
    describe_data,
    describe_run,
    keep_class_order,
    make_accelerator,
    micro_batch,
    with_classes,
)
from hamgan.training.step import GanStep


def train(config: Config, override: Sequence[str] = ()) -> None:
    """Train a configuration to its end, resuming whatever its run folder holds; see `Training`."""
    Training(config, override).run()


class Training:
    """Hold a run: its data, its step, where it stands and what it writes.

    ``override`` names configuration keys that may differ from those that the run was started with.
    Monitor, checkpoints, log and preview read where the run stands from one ``progress``: a return to a checkpoint
    changes it for all.
    """

    def __init__(self, config: Config, override: Sequence[str] = ()) -> None:
        validate(config)
        self.accelerator = make_accelerator(config)
        with FailureWatch():
            self._set_up(config, override)

    def _set_up(self, config: Config, override: Sequence[str]) -> None:
        self.source = open_source(config.data.source, config.data.split, config.resolution)
        check_source(self.source)
        check_same_everywhere("training data with", describe_data(self.source))
        self.config = config = with_classes(config, self.source)
        self.folder = config.folder
        overridden = check_same_run(self.folder, config, override)
        if "data.source" not in overridden:
            keep_class_order(self.source, self.folder)
        self.micro_batch = micro_batch(config, world_size())
        self.step = GanStep(*build_networks(config), config.train, self.accelerator)
        self.progress = Progress()
        self.monitor = Monitor(config.monitor, self.progress)
        self.preview = Preview(config, self.source, self.step, self.progress)
        self.signals = StopSignals()
        self.lock = FolderLock(self.folder)
        self.lock.acquire()
        try:
            self._resume()
            if self.accelerator.is_main_process:
                self._prepare_folder(overridden)
        except BaseException:
            self.lock.release()
            raise
        self.accelerator.wait_for_everyone()
        self.log = RunLog(config, self.accelerator, self.progress)
        self.checkpoints = CheckpointManager(
            config, self.source.class_names, self.step, self.progress, self.log.print_line, self.log.generator
        )
        if self.progress.images and self.accelerator.is_main_process:
            self.checkpoints.renew_generator()  # a kill may have come between a checkpoint and it
        length = describe_length(overridden, config, self.progress.images)
        for line in [*describe_run(config, self.source, self.step), *length]:
            self.log.print_line(line)

    def _resume(self) -> None:
        """Continue from the newest valid checkpoint; a new run may start from another model's weights."""
        print_line = self.accelerator.print
        path = latest_checkpoint(self.folder / "checkpoints", print_line)
        check_same_everywhere(f"in {self.folder} as newest checkpoint", path.name if path is not None else "none")
        if path is not None:
            self.progress.restore(load_checkpoint(path, self.step))
            print_line(f"resuming from {path}")
        elif self.config.train.init_from:
            classes = parse_class_mapping(self.config.train.init_classes, self.step.generator.num_classes)
            found = initialise_from(
                self.step.networks, Path(self.config.train.init_from), classes=classes, seed=self.config.seed
            )
            for name, initialisation in found.items():
                print_line(initialisation.summary(name))

    def _prepare_folder(self, overridden: Differences) -> None:
        checkpoints = self.folder / "checkpoints"
        for folder in (self.folder, checkpoints, *list_checkpoints(checkpoints)):
            remove_leftovers(folder)
        record_overrides(self.folder, overridden, self.progress.images)
        save_config(self.config, self.folder / "config.yaml")
        write_atomically(self.folder / "classes.json", json.dumps(self.source.class_names))
        record_environment(self.folder, self.progress.images, world_size())

    def run(self) -> None:
        """Train until ``total_kimg``; raise `Stopped` on a signal, `Diverged` when the run cannot go on."""
        finished = False
        try:
            with FailureWatch(), self.signals:
                if self.progress.images >= self._total:
                    kimg = f"{self.progress.images / 1000:g} of {self.config.train.total_kimg:g} kimg"
                    self.log.print_line(f"already at {kimg}; nothing to do")
                while self.progress.images < self._total:
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
    def _total(self) -> int:
        return round(self.config.train.total_kimg * 1000)

    def _train_stream(self) -> None:
        """Train to the end of the run with one stream of data and noise; raise `Collapse` when the monitor alarms."""
        config, progress = self.config, self.progress
        device = self.accelerator.device
        noise = Noise(config.seed, device, self.micro_batch, rank(), world_size(), progress.stream)
        with contextlib.closing(Batches(config, self.source, noise, self.step, progress.images)) as batches:
            while progress.images < self._total:
                self._make_step(batches)
                if self._passed(config.log.samples_every_kimg):
                    self._draw_sheet()
                if evaluated := self._passed(config.eval.every_kimg):
                    self._evaluate()
                if evaluated or self._passed(config.checkpoint.every_kimg):
                    self.checkpoints.save()
                self._stop_if_asked()
            self.checkpoints.save()
            self.checkpoints.wait_until_written(strict=True)

    def _make_step(self, batches: Batches) -> None:
        """Update D, G and the average of G, and log a row where one is due."""
        started = time.perf_counter()
        train, step, progress = self.config.train, self.step, self.progress
        before, after = progress.images, progress.images + self._images_per_step
        report = crosses(before, after, self.config.log.every_kimg) or after >= self._total
        settings = settings_at(train, before, progress.lr_factor)
        step.follow(settings)
        for index in range(train.discriminator_steps):
            shown = batches.for_discriminator(before, index)
            step.discriminator_step(shown, report)
        step.generator_step(batches.for_generator(before, shown), report)
        progress.images, progress.steps = after, progress.steps + 1
        step.update_average(after)
        self.log.count_step(after - before)
        if report:
            self._log_row(settings)
        seconds = time.perf_counter() - started
        progress.seconds += seconds
        if step.compiled and self.log.steps_made == 1:
            self.log.print_line(f"compiled  the first step took {duration(seconds)}, compiling included")

    @property
    def _images_per_step(self) -> int:
        """Return the real images that D sees per step of G."""
        return self.config.train.batch_size * self.config.train.discriminator_steps

    def _passed(self, kimg: float) -> bool:
        """Return whether the step just made passed a multiple of an interval."""
        return crosses(self.progress.images - self._images_per_step, self.progress.images, kimg)

    def _log_row(self, settings: TrainConfig) -> None:
        means = self.step.take_metrics()
        metrics = read_metrics(means, self.step.generator, self.step.discriminator)
        if self.accelerator.scaler is not None:  # it skips steps whose gradients have overflowed, as it should
            norms = [name for name in means if "gradient" in name and not math.isfinite(cast(float, metrics[name]))]
            metrics = {name: value for name, value in metrics.items() if name not in norms}
        row: Metrics = {**metrics, **scheduled_values(self.config.train, settings)}
        alarm = self.monitor.check_row(row)
        if alarm is None or not alarm.broken:
            self.log.row({**row, **self.log.speed()})
        self._act_on(alarm)

    def _draw_sheet(self) -> None:
        alarm = None
        if self.accelerator.is_main_process:
            sheet, diversity = self.preview.draw_sheet()
            self.log.sheet(sheet)
            alarm = self.monitor.check_sheet(diversity)
        self._act_on(alarm)

    def _evaluate(self) -> None:
        """Measure FID and the like on all processes; the checkpoint is kept while it is among the best."""
        started = time.perf_counter()
        row = self.preview.evaluate()
        seconds = time.perf_counter() - started
        self.progress.evaluation_seconds += seconds
        self.log.row(evaluation_metrics(row, seconds, self.progress))
        share = self.progress.evaluation_share
        self.log.print_line(f"evaluation: {duration(seconds)}; evaluations are {share:.1%} of the run's time so far")
        self.log.evaluation(row)
        fid = next((value for key, value in row.items() if key.startswith("fid")), None)
        if fid is not None:
            alarm = self.monitor.check_fid(fid)
            self.progress.fid[checkpoint_name(self.progress.images)] = fid
            self._act_on(alarm)

    def _act_on(self, alarm: Alarm | None) -> None:
        """Act on the main process's alarm: by going back, or by a warning where that is all that is wanted."""
        alarm = from_main(alarm)
        if alarm is None:
            return
        if self.config.monitor.action == "warn" and not alarm.broken:
            self.log.print_line(f"warning: at {self.progress.images / 1000:g} kimg {alarm.reason}")
        else:
            raise Collapse(alarm.reason)

    def _roll_back(self, reason: str) -> None:
        """Return to the last good checkpoint, to go on with other data and noise; `Diverged` where there is none."""
        settings, what = self.config.monitor, f"{reason} at {self.progress.images / 1000:g} kimg"
        self.checkpoints.wait_until_written(strict=False)
        folder = self.folder / "checkpoints"
        target = choose_checkpoint(settings, folder, self.progress, what, self.log.print_line)
        restore_earlier(target, self.step, self.progress, reason, settings.lr_factor)
        if self.accelerator.is_main_process:
            self.checkpoints.renew_generator()  # first: killed in between, the run comes here again and not past it
            commit_rollback(self.folder, target, self.progress)
        self.log.drop_later_rows()
        self.log.print_line(f"rolled back to {target.name} (rollback {self.progress.stream}): {what}")
        self.accelerator.wait_for_everyone()

    def _stop_if_asked(self) -> None:
        """Stop all processes after the same step, whichever of them the signal reached first."""
        stop, failed = self.signals.poll(self.checkpoints.failed)
        if failed:
            self.checkpoints.wait_until_written(strict=False)
        if stop:
            self.checkpoints.save()
            self.checkpoints.wait_until_written(strict=True)
            raise Stopped(f"checkpoint saved at {self.progress.images / 1000:g} kimg; the same command resumes")
