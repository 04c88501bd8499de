"""Compute the training settings at a position of the run."""

from dataclasses import replace

from hamgan.config import SCHEDULES, TrainConfig
from hamgan.config.schedules import Schedule, parse_schedule


def settings_at(train: TrainConfig, images: int, lr_factor: float = 1.0) -> TrainConfig:
    """Return the settings after a number of images, with learning rates multiplied by ``lr_factor``.

    Schedules of learning rates and gammas are factors on them; other schedules replace the value.
    """

    def value(schedule: str, start: float = 1.0) -> float:
        return _schedule(train, schedule).value(start, images, train.total_kimg)

    factor = value("lr_schedule")
    if train.lr_warmup_kimg:
        factor *= min(1.0, (images + train.batch_size) / (1000 * train.lr_warmup_kimg))
    factor *= lr_factor
    gamma = value("gamma_schedule")
    return replace(
        train,
        generator_lr=train.generator_lr * factor,
        discriminator_lr=train.discriminator_lr * factor,
        r1_gamma=train.r1_gamma * gamma,
        r2_gamma=train.r2_gamma * gamma,
        beta2=value("beta2_schedule", train.beta2),
        augment_probability=value("augment_schedule", train.augment_probability),
        top_k=value("top_k_schedule", train.top_k),
    )


def follows_length(train: TrainConfig) -> bool:
    """Return whether any scheduled value depends on the length of the run."""
    return any(_schedule(train, name).follows_length for name in SCHEDULES)


def scheduled_values(train: TrainConfig, now: TrainConfig) -> dict[str, float]:
    """Return both learning rates as ``g_lr`` and ``d_lr``, and the other scheduled values of ``train`` by key."""
    rates = {"g_lr": now.generator_lr, "d_lr": now.discriminator_lr}
    others = {name: keys for name, keys in SCHEDULES.items() if name != "lr_schedule"}
    moved = [key for name, keys in others.items() if not _schedule(train, name).is_constant for key in keys]
    return rates | {key: getattr(now, key) for key in moved}


def _schedule(train: TrainConfig, name: str) -> Schedule:
    return parse_schedule(getattr(train, name), f"train.{name}")
