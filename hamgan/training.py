"""The training loop: set-up, then steps of D and G, the average of G, logging, samples, evaluation, checkpoints."""

import json
import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from hamgan.batches import Batches
from hamgan.checkpoint import (
    Progress,
    checkpoint_name,
    generator_from_state,
    latest_checkpoint,
    load_checkpoint,
    networks_of,
    remove_leftovers,
    rotate,
    save_checkpoint,
    save_generator,
    write_atomically,
)
from hamgan.config import Config, ConfigError, TrainConfig, save_config, validate
from hamgan.convert.initialise import initialise_from, parse_class_mapping
from hamgan.data import BatchLoader, ImageSource, check_source, open_source
from hamgan.networks import build_networks
from hamgan.noise import Noise
from hamgan.reporting import describe_run, network_metrics
from hamgan.run_folder import check_same_run
from hamgan.sampling import LoadedGenerator, fold_spectral_norm
from hamgan.sheets import draw_sheet
from hamgan.step import GanStep
from hamgan.tracking import RunLog

if TYPE_CHECKING:
    from hamgan.evaluation import FeatureExtractor


class Diverged(RuntimeError):
    """A loss is not finite any more."""


class Stopped(Exception):
    """A signal asked the run to stop; a checkpoint has been saved."""


def make_accelerator(config: Config) -> Accelerator:
    """The Accelerator of a configuration: precision, trackers, and DDP without buffer broadcasts."""
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.train.tf32
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    tracker = config.log.tracker
    return Accelerator(
        # Without this, Accelerate takes every process that was launched on a machine without GPU for the only one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=None if tracker == "none" else tracker,
        project_dir=str(config.folder),
        # Buffers agree by construction: the same power iterations, batch norm over all processes. Broadcasting them
        # in place between two forwards of a step would break autograd (pytorch/pytorch#175024).
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )


class Training:
    """A run: its data, its step, where it stands and what it writes."""

    def __init__(self, config: Config) -> None:
        validate(config)
        self.accelerator = accelerator = make_accelerator(config)
        self.source = open_source(config.data.source, config.data.split, config.resolution)
        check_source(self.source)
        self.config = config = with_classes(config, self.source)
        self.folder = config.folder
        check_same_run(self.folder, config)
        self.micro_batch = _micro_batch(config, accelerator.num_processes)
        generator, discriminator = build_networks(config)
        self.step = GanStep(generator, discriminator, config.train, accelerator)
        self.noise = Noise(
            config.seed, accelerator.device, self.micro_batch, accelerator.process_index, accelerator.num_processes
        )
        self.progress = Progress()
        self._stop_signal: int | None = None
        self._saved_images = 0
        self._extractor = self._load_extractor()
        self._resume()
        if accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, self.folder / "checkpoints"):
                remove_leftovers(folder)
            save_config(config, self.folder / "config.yaml")
            write_atomically(self.folder / "classes.json", json.dumps(self.source.class_names))
        accelerator.wait_for_everyone()
        self.log = RunLog(self.folder, config, accelerator, self.progress.images)
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
            networks = networks_of(self.step)
            found = initialise_from(networks, Path(self.config.train.init_from), classes=classes, seed=self.config.seed)
            for name, initialisation in found.items():
                say(initialisation.summary(name))

    def run(self) -> None:
        """Train until ``total_kimg``; returns early by `Stopped` (signal) or `Diverged` (loss not finite)."""
        train, log = self.config.train, self.config.log
        total = round(train.total_kimg * 1000)
        if self.progress.images >= total:
            self.log.say(f"already at {self.progress.images / 1000:g} of {train.total_kimg:g} kimg; nothing to do")
            return
        handlers = self._install_signals()
        loader = self._loader()
        batches = Batches(self.config, loader, self.noise, self.step)
        try:
            while self.progress.images < total:
                started = time.perf_counter()
                report = self._due(log.every_kimg) or self.progress.images + self.images_per_step >= total
                self.step.scale_learning_rates(learning_rate_factor(train, self.progress.images))
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
                if evaluated or self._passed(self.config.checkpoint.every_kimg) or self.progress.images >= total:
                    self._save()
                self._stop_if_asked()
        finally:
            loader.close()
            self.log.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _loader(self) -> BatchLoader:
        return BatchLoader(
            self.source,
            seed=self.config.seed,
            start=self.progress.images,
            batch_size=self.micro_batch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            prefetch=self.config.data.prefetch,
            pin=self.accelerator.device.type == "cuda",
        )

    def _due(self, kimg: float) -> bool:
        """Whether the step about to run passes a multiple of an interval."""
        return _crosses(self.progress.images, self.progress.images + self.images_per_step, kimg)

    def _passed(self, kimg: float) -> bool:
        """Whether the step just made passed a multiple of an interval."""
        return _crosses(self.progress.images - self.images_per_step, self.progress.images, kimg)

    def _log_row(self) -> None:
        metrics = {name: float(value) for name, value in self.step.take_metrics().items()}
        broken = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if broken:
            self._diverge(f"{', '.join(broken)} is")
        train = self.config.train
        factor = learning_rate_factor(train, self.progress.images - self.images_per_step)
        metrics |= {"g_lr": train.generator_lr * factor, "d_lr": train.discriminator_lr * factor}
        metrics |= network_metrics(self.step.generator, self.step.discriminator) | self.log.speed(self.progress)
        self.log.row(self.progress.images, metrics)

    def _diverge(self, what: str) -> NoReturn:
        raise Diverged(
            f"{what} not finite at {self.progress.images / 1000:g} kimg; "
            f"the last checkpoint is {latest_checkpoint(self.folder / 'checkpoints', lambda _: None)}"
        )

    def sampler(self) -> LoadedGenerator:
        """A folded copy of the network to sample from as it stands, with its class names."""
        network = generator_from_state(self.config, self.step.sampler.state_dict(), self.folder)
        return LoadedGenerator(
            fold_spectral_norm(network.to(self.accelerator.device)),
            self.config,
            class_names=self.source.class_names,
            kimg=self.progress.images / 1000,
            source=str(self.folder),
        )

    def _sheet(self) -> None:
        if not self.accelerator.is_main_process:
            return
        log, sampler = self.config.log, self.sampler()
        classes = range(min(log.sample_classes, sampler.num_classes))
        # The same seeds in every row and at every time: only the class and the weights change.
        seeds = range(log.samples_per_class)
        rows = [sampler(seeds, [label], output="tensor") for label in classes]
        sheet = draw_sheet(rows, [self.source.class_names[label] for label in classes])
        self.log.sheet(checkpoint_name(self.progress.images), sheet, self.progress.images)

    def _load_extractor(self) -> "FeatureExtractor | None":
        """Before the first step: missing weights should end a run now, not hours later."""
        if self.config.eval.every_kimg <= 0:
            return None
        from hamgan.evaluation import load_extractor  # torch-fidelity is not needed to train

        return load_extractor(self.config.eval.features, device=self.accelerator.device)

    def _evaluate(self) -> None:
        """FID and the like on all processes; the checkpoint is kept while it is among the best."""
        from hamgan.evaluation import evaluate
        from hamgan.evaluation.report import append_row

        settings = self.config.eval
        row = evaluate(
            self.sampler(),
            settings.reference or self.config.data.source,
            settings.metrics,
            settings.features,
            num_samples=settings.num_samples,
            reference_samples=settings.reference_samples,
            batch_size=settings.batch_size,
            batch_norm=settings.batch_norm,
            extractor=self._extractor,
            cache=self.folder / "features",
            progress=False,
        )
        self.log.row(self.progress.images, {key: value for key, value in row.items() if isinstance(value, float)})
        if self.accelerator.is_main_process:
            append_row(row, self.folder / "results.jsonl")
        fid = next((value for key, value in row.items() if key.startswith("fid")), None)
        if fid is not None:
            self.progress.fid[checkpoint_name(self.progress.images)] = fid

    def _save(self) -> None:
        """One process writes, all wait. What was saved after this step already is not written again."""
        if self._saved_images == self.progress.images:
            return
        self._saved_images = self.progress.images
        for name, network in networks_of(self.step).items():
            if not torch.stack(torch._foreach_norm(list(network.parameters()))).isfinite().all():
                self._diverge(f"weights of the {name} are")
        self.step.share_sums()
        if self.accelerator.is_main_process:
            checkpoints = self.folder / "checkpoints"
            save_checkpoint(checkpoints, self.step, self.progress)
            rotate(checkpoints, self.config.checkpoint, self.progress.fid, self.images_per_step)
            save_generator(
                self.folder / "generator.safetensors",
                self.step.sampler,
                self.config,
                class_names=self.source.class_names,
                kimg=self.progress.images / 1000,
            )
        self.accelerator.wait_for_everyone()

    def _install_signals(self) -> dict[int, Any]:
        """Let signals ask for a stop after the step; returns the handlers that were there."""

        def ask(number: int, _frame: Any) -> None:
            if self._stop_signal is not None:  # the second signal means now
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._stop_signal = number

        return {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}

    def _stop_if_asked(self) -> None:
        """All processes stop after the same step, whichever of them the signal reached first."""
        stop = self._stop_signal is not None
        if self.accelerator.num_processes > 1:
            asked = torch.tensor(float(stop), device=self.accelerator.device)
            stop = float(self.accelerator.reduce(asked, reduction="sum")) > 0
        if stop:
            self._save()
            raise Stopped(
                f"stopped at {self.progress.images / 1000:g} kimg, checkpoint saved; the same command resumes"
            )


def _crosses(before: int, after: int, kimg: float) -> bool:
    images = round(kimg * 1000)
    return images > 0 and after // images != before // images


def learning_rate_factor(train: TrainConfig, images: int) -> float:
    """What the learning rates are multiplied by after so many images."""
    return 1.0 if train.lr_schedule == "constant" else max(0.0, 1.0 - images / (train.total_kimg * 1000))


def _micro_batch(config: Config, processes: int) -> int:
    """Images per backward pass over all processes; ConfigError unless everything divides."""
    train = config.train
    if train.batch_size % (train.accumulation * processes):
        parts = train.accumulation * processes
        below = train.batch_size // parts * parts
        raise ConfigError(
            f"train.batch_size {train.batch_size} does not divide by {processes} process(es) x {train.accumulation} "
            f"accumulation step(s); take {below or parts} or {below + parts}"
        )
    return train.batch_size // train.accumulation


def with_classes(config: Config, source: ImageSource) -> Config:
    """The configuration with the number of classes of its data; ConfigError when it names another number."""
    count = len(source.class_names)
    if config.data.num_classes not in (None, count):
        raise ConfigError(f"data.num_classes is {config.data.num_classes}, but {source.name} has {count} classes")
    return replace(config, data=replace(config.data, num_classes=count))


def train(config: Config) -> None:
    """Train a configuration to its end, resuming whatever its run folder holds."""
    Training(config).run()
