"""Compute learning rates as functions of the images seen: a falling power, with a linear warm-up on top."""

from hamgan.segmentation.config import TrainConfig


def learning_rate(train: TrainConfig, images: int, base: float | None = None) -> float:
    """Return the rate of the step that begins after a number of images; ``base`` replaces ``train.lr``.

    MMCV's formulae: ``min_lr + (base - min_lr) (1 - t / T)^power``, which the warm-up multiplies by
    ``1 - (1 - t / W) (1 - warmup_ratio)`` while t < W.
    """
    base = train.lr if base is None else base
    progress = min(1.0, images / (train.total_kimg * 1000))
    rate: float = train.min_lr + (base - train.min_lr) * (1.0 - progress) ** train.power
    warmup = train.warmup_kimg * 1000
    if images < warmup:
        rate *= 1.0 - (1.0 - images / warmup) * (1.0 - train.warmup_ratio)
    return rate
