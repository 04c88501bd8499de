"""Compute the loss of a training step, counting or not counting ignored pixels in the average."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.distributed.group import mean_over_processes_
from hamgan.segmentation.data.source import IGNORED
from hamgan.segmentation.heads import resize
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.segmenter import Logits

LossAverage = Literal["all", "valid"]


class Losses(NamedTuple):
    """Hold the loss to differentiate and its parts, scalars on the device."""

    total: Tensor
    main: Tensor
    auxiliary: Tensor | None
    accuracy: Tensor
    """Share of the labelled pixels that the head classifies correctly, without gradient."""


def cross_entropy(
    logits: Tensor, labels: Tensor, average: LossAverage = "all", weights: Sequence[float] | None = None
) -> Tensor:
    """Return the mean cross-entropy of logits [B, classes, H, W] and labels [B, H, W], in float32.

    ``weights`` multiply the losses of the pixels of each class. `IGNORED` pixels have no loss. ``all`` divides by the
    number of all pixels, including ignored ones (MMSegmentation, HamNet); ``valid`` divides by the number of labelled
    ones, or the sum of their weights, over all processes, which must then all call this. Without labels the loss is 0.
    """
    weight = None if weights is None else torch.tensor(weights, device=logits.device)
    total = F.cross_entropy(logits.float(), labels.long(), weight, ignore_index=IGNORED, reduction="sum")
    if average == "all":
        return total / labels.numel()
    if weight is None:
        amount = (labels != IGNORED).sum().float()
    else:
        amount = F.pad(weight, (0, IGNORED + 1 - len(weight)))[labels.long()].sum()
    # The gradient is averaged over the processes, so the sum is divided by the mean of their counts.
    amount = mean_over_processes_(amount)
    return total / amount.where(amount > 0, 1.0)


def pixel_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of the labelled pixels whose largest logit is that of their label; 0 without labels."""
    valid = labels != IGNORED
    return ((logits.argmax(dim=1) == labels) & valid).sum() / valid.sum().clamp(min=1)


def segmentation_loss(logits: Logits, labels: Tensor, config: SegmentationConfig) -> Losses:
    """Return the loss of logits, resized to the label maps [B, H, W], in a training step."""
    average, align, weights = config.train.loss_average, config.head.align_corners, config.train.class_weights
    full = resize(logits.main.float(), labels.shape[1:], align)
    main = cross_entropy(full, labels, average, weights)
    accuracy = pixel_accuracy(full.detach(), labels)
    if logits.auxiliary is None:
        return Losses(main, main, None, accuracy)
    auxiliary = resize(logits.auxiliary.float(), labels.shape[1:], align)
    auxiliary = cross_entropy(auxiliary, labels, average, weights)
    return Losses(main + config.auxiliary.weight * auxiliary, main, auxiliary, accuracy)
