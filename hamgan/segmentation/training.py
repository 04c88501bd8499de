"""Train a segmenter: set up a run, make steps, and log, draw, evaluate and save in between."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hamgan.checkpoint import Progress, RunCheckpoints, checkpoint_name, read_class_names
from hamgan.checkpoint.evaluations import select_evaluations
from hamgan.config import check_intervals
from hamgan.data.source import name_some
from hamgan.distributed.cores import core_count
from hamgan.distributed.failure_watch import FailureWatch
from hamgan.distributed.group import rank, start_processes, world_size
from hamgan.errors import ConfigError
from hamgan.networks import count_parameters
from hamgan.progress import duration
from hamgan.segmentation.augment import scaled_size
from hamgan.segmentation.config import SEGMENTATION, validate
from hamgan.segmentation.convert import load_encoder_weights
from hamgan.segmentation.data.loader import TrainingLoader
from hamgan.segmentation.data.opening import HELD_OUT, open_source
from hamgan.segmentation.data.source import SegmentationSource
from hamgan.segmentation.drawing import colourise, draw_comparison
from hamgan.segmentation.evaluation import describe_scores, evaluate
from hamgan.segmentation.inference import predict_labels
from hamgan.segmentation.parameters import describe_groups
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.segmenter import Segmenter, build_segmenter
from hamgan.segmentation.step import SegmentationStep, learning_rate, make_input
from hamgan.segmentation.storing import (
    SEGMENTER_FILE,
    SegmenterHeader,
    read_header,
    save_segmenter,
    segmenter_from_state,
)
from hamgan.segmentation.van import REACH
from hamgan.tracking.run_log import RunLog
from hamgan.training.divergence import Alarm, RowMonitor
from hamgan.training.noise import Noise
from hamgan.training.run import Run
from hamgan.training.run_folder import LENGTH, Differences, check_same_run
from hamgan.training.setup import check_number_of_classes, check_same_everywhere, divide_batch, start_accelerator


def train(config: SegmentationConfig, override: Sequence[str] = ()) -> None:
    """Train a configuration to its end, resuming the run in its folder if there is one; see `SegmentationTraining`."""
    SegmentationTraining(config, override).run()


class SegmenterCheckpoints(RunCheckpoints):
    """Write the checkpoints of a segmenter's run and its segmenter.safetensors."""

    def __init__(self, run: "SegmentationTraining", log: RunLog) -> None:
        super().__init__(run.config, run.step, run.progress, log.print_line, log.weights_written)
        self.config, self.source = run.config, run.source
        self._path = run.config.folder / SEGMENTER_FILE

    def write_weights(self, weights: Mapping[str, Tensor], images: int) -> None:
        """Write segmenter.safetensors, with its evaluations."""
        names, palette, kimg = self.source.class_names, self.source.palette.tolist(), images / 1000
        evaluations = select_evaluations(self.config.folder, lambda row: row.get("kimg") == kimg)
        save_segmenter(self._path, weights, SegmenterHeader(self.config, names, palette, kimg, evaluations))

    def weights_kimg(self) -> float | None:
        """Return the position of segmenter.safetensors in kimg, None if unknown."""
        return read_header(self._path).kimg


class SegmentationTraining(Run[SegmentationConfig, SegmentationStep, TrainingLoader]):
    """Hold a segmenter's run: its data, its training step, its progress and its outputs.

    ``override`` names configuration keys that may differ from those that the run was started with.
    """

    def __init__(self, config: SegmentationConfig, override: Sequence[str] = ()) -> None:
        validate(config)
        check_intervals(config)
        start_processes()
        threads = config.train.threads or (
            torch.get_num_threads() if torch.accelerator.is_available() else core_count()
        )
        self.accelerator = start_accelerator(config.train.precision, tf32=config.train.tf32, threads=threads)
        with FailureWatch():
            self._set_up(config, override)

    def _set_up(self, config: SegmentationConfig, override: Sequence[str]) -> None:
        self.source, self.held_out = open_source(config.data), None
        if config.eval.every_kimg > 0 or config.log.samples_every_kimg > 0:
            self.held_out = open_source(config.data, config.eval.split or HELD_OUT)
        check_same_everywhere("training data with", str(self.source.describe()))
        self.config = config = with_classes(config, self.source)
        overridden = check_same_run(config.folder, config, override, SEGMENTATION)
        _check_class_names(self.source, config)
        self.micro_batch = divide_batch(config.train.batch_size, config.train.accumulation, world_size())[0]
        self.step = SegmentationStep(build_segmenter(config), config, self.accelerator)
        self.progress = Progress()
        self.monitor = RowMonitor(config.monitor, self.progress)
        self.open(overridden, self.source.class_names, self._open_log, lambda log: SegmenterCheckpoints(self, log))
        for line in [*self._describe(), *describe_length(overridden, config, self.progress.images)]:
            self.log.print_line(line)

    def _open_log(self) -> RunLog:
        return RunLog(self.config, self.accelerator, self.progress, SEGMENTER_FILE)

    def begin(self) -> None:
        """Load the encoder's weights, and print what was loaded."""
        report = load_encoder_weights(self.step.network)
        if self.step.average is not None:
            self.step.average.load_state_dict(self.step.network.state_dict())
        self.accelerator.print(report)

    def open_batches(self) -> TrainingLoader:
        """Start the threads that read and augment the stream ``progress.stream``."""
        config, progress = self.config, self.progress
        device = self.accelerator.device
        self._noise = Noise(config.seed, device, self.micro_batch, rank(), world_size(), progress.stream)
        return TrainingLoader(
            self.source,
            config.augment,
            seed=config.seed,
            start=progress.images,
            batch_size=self.micro_batch,
            rank=rank(),
            world_size=world_size(),
            stream=progress.stream,
            threads=config.data.threads,
            prefetch=config.data.prefetch * config.train.accumulation,
            pin=device.type == "cuda",
        )

    def make_step(self, batches: TrainingLoader) -> None:
        """Update the segmenter and its average, and log a row at its interval."""
        started = time.perf_counter()
        step, progress, report = self.step, self.progress, self.reports_next()
        before = progress.images
        rate = step.set_learning_rates(before, progress.lr_factor)
        counters = [before + part * self.micro_batch for part in range(self.config.train.accumulation)]
        step.step([make_input(next(batches), step.network, self._noise, counter) for counter in counters], report)
        step.update_average()
        progress.images, progress.steps = before + self.config.images_per_step, progress.steps + 1
        self.log.count_step(self.config.images_per_step)
        if report:
            self._log_row(rate)
        progress.seconds += time.perf_counter() - started

    def _log_row(self, rate: float) -> None:
        means = self.step.metrics.take()
        values = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
        if self.accelerator.scaler is not None and not np.isfinite(values["gradient_norm"]):
            del values["gradient_norm"]  # the scaler skips steps whose gradients overflow
        row = {**values, "lr": rate}
        alarm = self.monitor.check_row(row)
        if alarm is None or not alarm.broken:
            self.log.row({**row, **self.log.speed()})
        self.act_on(alarm)

    def measured(self) -> Segmenter:
        """Return a copy of the resulting network in float32; the one in training uses the run's precision."""
        state = self.step.sampler.state_dict()
        return segmenter_from_state(self.config, state, self.config.folder).to(self.accelerator.device)

    def draw_sheet(self) -> None:
        """Draw and log held-out images with truth and prediction, in the main process only."""
        if not self.accelerator.is_main_process or self.held_out is None:
            return
        network, source, settings = self.measured(), self.held_out, self.config.eval
        rows, keys = [], []
        for index in range(min(self.config.log.samples, len(source))):
            image, labels = source.read(spread(index, self.config.log.samples, len(source)))
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.accelerator.device)
            predicted = predict_labels(network, pixels, settings)[0].cpu().numpy()
            rows.append((image, *(colourise(values, source.palette) for values in (labels, predicted))))
            keys.append(source.key(spread(index, self.config.log.samples, len(source)))[-24:])
        self.log.sheet(
            draw_comparison(rows, keys, ("image", "truth", "prediction"), source.class_names, source.palette)
        )

    def evaluate(self) -> None:
        """Evaluate on all processes; the checkpoint is kept while it is among the best."""
        assert self.held_out is not None
        started = time.perf_counter()
        row = evaluate(self.measured(), self.held_out, self.config.eval, kimg=self.progress.images / 1000)
        seconds = time.perf_counter() - started
        self.progress.evaluation_seconds += seconds
        scores = {name: row[name] for name in ("miou", "macc", "aacc")}
        share = self.progress.evaluation_share
        self.log.row({**scores, "evaluation_seconds": seconds, "evaluation_share": share})
        self.log.print_line(
            f"evaluation: {describe_scores(row)}; {duration(seconds)}, {share:.1%} of the run's time so far"
        )
        self.log.evaluation(row)
        if not np.isfinite(row["miou"]):
            self.act_on(Alarm("the mIoU is not finite: no pixel of the held-out images has a label"))
        self.compare_scores_of(row)
        self.progress.miou[checkpoint_name(self.progress.images)] = row["miou"]

    def _describe(self) -> list[str]:
        """Return lines that describe run folder, data, network, parameter groups, division of the batch and device."""
        config, train, processes = self.config, self.config.train, world_size()
        parameters = count_parameters(self.step.network)
        device, precision = self.accelerator.device, self.accelerator.mixed_precision.replace("no", "fp32")
        threads = f", {torch.get_num_threads()} of {core_count()} cores" if device.type == "cpu" else ""
        steps = round(train.total_kimg * 1000 / train.batch_size)
        return [
            f"run       {config.folder}",
            f"data      {self.source.name}/{self.source.split}: {len(self.source):,} images, "
            f"{len(self.source.class_names)} classes ({name_some(self.source.class_names)})",
            f"network   {config.encoder.kind} {config.encoder.name}, {config.head.kind} head, context "
            f"{config.head.context}: {parameters:,} parameters",
            "groups    " + f"\n{'':10}".join(describe_groups(self.step.groups, train)),
            f"batch     {train.batch_size} images = {processes} process(es) x {train.accumulation} accumulation x "
            f"{train.batch_size // train.accumulation // processes}; {steps:,} steps",
            f"device    {device}, {precision}, TF32 {'on' if train.tf32 else 'off'}{threads}",
            *([] if self.held_out is None else warn_of_untrained_kernels(config, self.held_out)),
        ]


def spread(index: int, count: int, total: int) -> int:
    """Return the index-th of ``count`` indices spread evenly below ``total``."""
    return index if total <= count else (2 * index + 1) * total // (2 * count)


def describe_length(differences: Differences, config: SegmentationConfig, images: int) -> list[str]:
    """Describe what a changed length means for the learning rate, which falls until the end; at most one line."""
    if LENGTH not in differences:
        return []
    before = replace(config.train, total_kimg=float(str(differences[LENGTH][0])))
    first, then = (learning_rate(train, images) for train in (before, config.train))
    return [
        f"length    {config.train.total_kimg:g} kimg, was {before.total_kimg:g}: the learning rate falls to "
        f"the new end, so at {images / 1000:g} kimg it goes from {first:.3g} to {then:.3g}"
    ]


def warn_of_untrained_kernels(config: SegmentationConfig, held_out: SegmentationSource) -> list[str]:
    """Return a warning if images, or windows, use weights of a VAN's large kernels that no crop can train.

    Such weights keep their random initial values: the preset ``land`` had an mIoU of 48 with them, and 59 by windows.
    """
    settings, crop, stride = config.eval, config.augment.crop, math.prod(config.encoder.strides)
    side = max(scaled_size(held_out.read(0).labels.shape, settings.short_side, settings.long_side))
    if settings.mode == "slide":
        side = min(side, settings.window)
    if config.encoder.kind != "van" or side <= crop or crop > REACH * stride:
        return []
    return [
        f"warning   a crop of {crop} px has {-(-crop // stride)} cells at stride {stride}, and the encoder's kernels "
        f"reach {REACH}: weights that no crop trains change images of {side} px; eval.mode: slide with eval.window: "
        f"{crop} avoids it"
    ]


def with_classes(config: SegmentationConfig, source: SegmentationSource) -> SegmentationConfig:
    """Return the configuration with the number of classes of its data; ConfigError if it has another number."""
    classes = len(source.class_names)
    check_number_of_classes(config.data.num_classes, source.name, classes)
    return replace(config, data=replace(config.data, num_classes=classes))


def _check_class_names(source: SegmentationSource, config: SegmentationConfig) -> None:
    recorded = read_class_names(config.folder)
    if recorded not in (None, source.class_names):
        raise ConfigError(
            f"{config.folder} was trained on other classes than {source.name} has, or in another order; choose another "
            "name or --run_dir for a new run"
        )
