"""Make a training step of a segmenter: losses of all micro-batches, one update, and the average of the weights."""

import copy
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hamgan.distributed.group import world_size
from hamgan.networks.batch_norm import convert_cross_replica
from hamgan.segmentation.data.loader import Batch
from hamgan.segmentation.losses import segmentation_loss
from hamgan.segmentation.parameters import make_optimizer, parameter_groups
from hamgan.segmentation.schema import SegmentationConfig, TrainConfig
from hamgan.segmentation.segmenter import Segmenter, SegmenterNoise, normalise
from hamgan.training.noise import Noise
from hamgan.training.step import float_state, prepare_model
from hamgan.training.sums import MetricSums


@dataclass(frozen=True)
class StepInput:
    """Hold the input of one backward pass, on the device."""

    images: Tensor
    """Normalised images [b, 3, crop, crop]; padding is 0, the mean colour."""
    labels: Tensor
    """uint8 [b, crop, crop]."""
    noise: SegmenterNoise


def make_input(batch: Batch, network: Segmenter, noise: Noise, counter: int) -> StepInput:
    """Move a batch to the device, and draw its noise as a function of the images seen, for the global batch."""
    device = noise.device
    images, labels, sizes = (part.to(device, non_blocking=True) for part in batch)
    rows, columns = (torch.arange(side, device=device) for side in images.shape[2:])
    inside = (rows < sizes[:, :1])[:, None, :, None] & (columns < sizes[:, 1:])[:, None, None, :]
    drawn = network.draw_noise(noise.batch, device, noise.generator("segmenter", counter, device))
    own = SegmenterNoise(*(None if values is None else noise.share(values) for values in drawn))
    return StepInput(normalise(images) * inside, labels, own)


class SegmentationStep:
    """Hold a segmenter, its optimiser and optional average, prepared by Accelerate, and update them."""

    def __init__(self, network: Segmenter, config: SegmentationConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        if world_size() > 1:
            convert_cross_replica(network)
        self.network = network.to(accelerator.device).train()
        self.average = copy.deepcopy(network).eval().requires_grad_(False) if config.train.ema_decay else None
        self.groups = parameter_groups(network, config.train)
        self.optimizer = make_optimizer(self.groups, config.train)
        self.metrics = MetricSums(accelerator)
        if config.train.compile:
            self.network.compile(dynamic=False)
        # DDP warns of gradients whose strides differ from their weights'. Those of depth-wise weights differ only along
        # their single input channel, where strides are meaningless.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self._model = prepare_model(self.network, accelerator)
        self._stepper = accelerator.prepare_optimizer(self.optimizer)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return the segmenter and, if one is kept, its average, by name."""
        networks: dict[str, nn.Module] = {"segmenter": self.network}
        return networks if self.average is None else networks | {"average": self.average}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimiser by the name of its network."""
        return {"segmenter": self.optimizer}

    @property
    def sampler(self) -> Segmenter:
        """Return the network to evaluate and store: the average, if one is kept."""
        return self.network if self.average is None else self.average

    def set_learning_rates(self, images: int, factor: float = 1.0) -> float:
        """Set the learning rates of all groups for the step after ``images`` images; returns the encoder's."""
        train = self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = factor * learning_rate(train, images, train.lr * group["lr_factor"])
        return factor * learning_rate(train, images)

    def step(self, inputs: Sequence[StepInput], report: bool = False) -> None:
        """Make one update over ``len(inputs)`` accumulated backward passes; ``report`` records the gradient's norm."""
        self._stepper.zero_grad()
        for index, batch in enumerate(inputs):
            last = index == len(inputs) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._model):
                logits = self._model(batch.images, batch.noise)
                losses = segmentation_loss(logits, batch.labels, self.config)
                self.accelerator.backward(losses.total / len(inputs))
            parts = {"loss": losses.main, "accuracy": losses.accuracy}
            self.metrics.add(**parts | ({} if losses.auxiliary is None else {"auxiliary_loss": losses.auxiliary}))
        self.accelerator.unscale_gradients(self._stepper)
        self._clip(report)
        self._stepper.step()

    def _clip(self, report: bool) -> None:
        limit = self.config.train.clip_gradient
        if not (limit or report):
            return
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit or float("inf"))
        if report:
            self.metrics.add(gradient_norm=norm)

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the average of weights and buffers."""
        if self.average is not None:
            average, current = (float_state(network) for network in (self.average, self.network))
            torch._foreach_lerp_(average, current, 1.0 - self.config.train.ema_decay)

    def extra_state(self) -> dict[str, Tensor]:
        """Return the metrics that were not logged yet, for a checkpoint."""
        return self.metrics.state()

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state of `extra_state` from all tensors of a checkpoint."""
        self.metrics.load_state(tensors)

    def share_sums(self) -> None:
        """Average the pending metrics over all processes."""
        self.metrics.share()


def learning_rate(train: TrainConfig, images: int, base: float | None = None) -> float:
    """Return the learning rate of the step after ``images`` images; ``base`` replaces ``train.lr``.

    MMCV's formulae: ``min_lr + (base - min_lr) (1 - t / T)^power``, multiplied in the warm-up by
    ``1 - (1 - t / W) (1 - warmup_ratio)`` while t < W.
    """
    base = train.lr if base is None else base
    progress = min(1.0, images / (train.total_kimg * 1000))
    rate: float = train.min_lr + (base - train.min_lr) * (1.0 - progress) ** train.power
    warmup = train.warmup_kimg * 1000
    if images < warmup:
        rate *= 1.0 - (1.0 - images / warmup) * (1.0 - train.warmup_ratio)
    return rate
