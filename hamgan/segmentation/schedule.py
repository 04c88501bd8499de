"""Compute learning rates as functions of the images seen: polynomial decay with a linear warm-up."""

from hamgan.segmentation.config import TrainConfig


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
