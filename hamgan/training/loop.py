"""Train a GAN: set up a run, alternate steps of D and G, and log, draw, evaluate and save in between."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hamgan.checkpoint import CheckpointManager, Progress, checkpoint_name
from hamgan.checkpoint.choice import fid_key
from hamgan.checkpoint.warm_start import initialise_from, parse_class_mapping
from hamgan.config import Config, TrainConfig, check_intervals, validate
from hamgan.data import check_source, open_training
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import rank, world_size
from hamgan.networks import build_networks
from hamgan.progress import duration
from hamgan.tracking.network_metrics import Metrics, read_metrics
from hamgan.tracking.run_log import RunLog
from hamgan.tracking.utilisation import count_arithmetic
from hamgan.training.batches import Batches
from hamgan.training.divergence import Monitor
from hamgan.training.noise import Noise
from hamgan.training.preview import Preview, evaluation_metrics
from hamgan.training.run import Run
from hamgan.training.run_folder import check_same_run, describe_length
from hamgan.training.schedules import scheduled_values, settings_at
from hamgan.training.setup import (
    check_same_everywhere,
    describe_data,
    describe_run,
    keep_class_order,
    make_accelerator,
    micro_batch,
    with_classes,
)
from hamgan.training.step import GanStep


def train(config: Config, override: Sequence[str] = ()) -> None:
    """Train a configuration to its end, resuming the run in its folder if there is one.

    ``override`` names configuration keys that may differ from those that the run was started with. Raises ConfigError
    for a configuration that cannot be trained, `Stopped` on a signal and `Diverged` if the run cannot go on.
    """
    Training(config, override).run()


class Training(Run[Config, GanStep, Batches]):
    """Hold a GAN's run: its data, its training step, its progress and its outputs.

    ``override`` names configuration keys that may differ from those that the run was started with.
    """

    checkpoints: CheckpointManager

    def __init__(self, config: Config, override: Sequence[str] = ()) -> None:
        validate(config)
        check_intervals(config)
        self.accelerator = make_accelerator(config)
        with FailureWatch():
            self._set_up(config, override)

    def _set_up(self, config: Config, override: Sequence[str]) -> None:
        self.source = open_training(config.data, config.resolution)
        check_source(self.source)
        check_same_everywhere("training data with", describe_data(self.source))
        self.config = config = with_classes(config, self.source)
        overridden = check_same_run(config.folder, config, override)
        keep_class_order(self.source, config.folder, others="data.source" in overridden)
        self.micro_batch = micro_batch(config, world_size())
        self.step = GanStep(*build_networks(config), config.train, self.accelerator)
        self.progress = Progress()
        self.monitor = Monitor(config.monitor, self.progress)
        self.preview = Preview(config, self.source, self.step, self.progress)
        self.open(overridden, self.source.class_names, self._open_log, self._open_checkpoints)
        length = describe_length(overridden, config, self.progress.images)
        for line in [*describe_run(config, self.source, self.step), *length]:
            self.log.print_line(line)

    def _open_log(self) -> RunLog:
        on_gpu = self.accelerator.is_main_process and self.accelerator.device.type != "cpu"
        arithmetic = count_arithmetic(self.config, self.accelerator) if on_gpu else None
        return RunLog(self.config, self.accelerator, self.progress, arithmetic=arithmetic)

    def _open_checkpoints(self, log: RunLog) -> CheckpointManager:
        names = self.source.class_names
        return CheckpointManager(self.config, names, self.step, self.progress, log.print_line, log.weights_written)

    def begin(self) -> None:
        """Start a new run, with `train.init_from` from another model's weights."""
        if self.config.train.init_from:
            classes = parse_class_mapping(self.config.train.init_classes, self.step.generator.num_classes)
            # Averages of a length begin as copies of G, with the first step.
            networks = {name: item for name, item in self.step.networks.items() if not name.startswith("average_")}
            found = initialise_from(networks, Path(self.config.train.init_from), classes=classes, seed=self.config.seed)
            for name, initialisation in found.items():
                self.accelerator.print(initialisation.summary(name))

    def open_batches(self) -> Batches:
        """Start the loader and the noise of the stream ``progress.stream``."""
        config, progress, device = self.config, self.progress, self.accelerator.device
        noise = Noise(config.seed, device, self.micro_batch, rank(), world_size(), progress.stream)
        return Batches(config, self.source, noise, self.step, progress.images)

    def make_step(self, batches: Batches) -> None:
        """Update D, G and the average of G, and log a row at its interval."""
        started = time.perf_counter()
        train, step, progress = self.config.train, self.step, self.progress
        before, after = progress.images, progress.images + self.config.images_per_step
        report = self.reports_next()
        settings = settings_at(train, before, progress.lr_factor)
        step.apply_settings(settings)
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

    def _log_row(self, settings: TrainConfig) -> None:
        means = self.step.take_metrics()
        metrics = read_metrics(means, self.step.generator, self.step.discriminator)
        if self.accelerator.scaler is not None:  # it skips steps whose gradients overflow
            norms = [name for name in means if "gradient" in name and not math.isfinite(cast(float, metrics[name]))]
            metrics = {name: value for name, value in metrics.items() if name not in norms}
        row: Metrics = {**metrics, **scheduled_values(self.config.train, settings)}
        alarm = self.monitor.check_row(row)
        if alarm is None or not alarm.broken:
            self.log.row({**row, **self.log.speed()})
        self.act_on(alarm)

    def draw_sheet(self) -> None:
        """Draw and log a sheet of fixed latents, in the main process only."""
        alarm = None
        if self.accelerator.is_main_process:
            sheet, diversity = self.preview.draw_sheet()
            self.log.sheet(sheet)
            alarm = self.monitor.check_sheet(diversity)
        self.act_on(alarm)

    def evaluate(self) -> None:
        """Evaluate on all processes; the checkpoint is kept while it is among the best."""
        started = time.perf_counter()
        row = self.preview.evaluate()
        seconds = time.perf_counter() - started
        self.progress.evaluation_seconds += seconds
        self.log.row(evaluation_metrics(row, seconds, self.progress))
        share = self.progress.evaluation_share
        self.log.print_line(f"evaluation: {duration(seconds)}; evaluations are {share:.1%} of the run's time so far")
        self.log.evaluation(row)
        if key := fid_key(row):
            fid = row[key]
            self.compare_scores_of(row)
            alarm = self.monitor.check_fid(fid)
            self.progress.fid[checkpoint_name(self.progress.images)] = fid
            self.act_on(alarm)
