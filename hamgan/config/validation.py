"""Validate the values of a configuration, alone and together."""

import math
from collections.abc import Sequence

from hamgan.config.networks import DiscriminatorConfig, GeneratorConfig, HamburgerConfig
from hamgan.config.ranges import above_one, below_one, not_negative, positive, require
from hamgan.config.runs import RunConfig
from hamgan.config.schedules import parse_schedule
from hamgan.config.schema import METRICS, Config, MonitorConfig
from hamgan.config.training import SCHEDULES, TrainConfig
from hamgan.errors import did_you_mean

RESOLUTIONS = (32, 64, 128, 256, 512)


def validate(config: Config) -> None:
    """Raise ConfigError for the first value that is out of range or does not fit the others."""
    validate_run(config)
    require(config.resolution in RESOLUTIONS, f"resolution is {config.resolution}; allowed: {RESOLUTIONS}")
    _validate_generator(config.generator, config.resolution)
    _validate_context("discriminator", config.discriminator, config.resolution)
    _validate_train(config.train)
    positive("log", config.log, "sample_classes", "samples_per_class")
    _validate_evaluation(config)
    _validate_monitor(config.monitor)
    if config.data.num_classes is not None:
        positive("data", config.data, "num_classes")


def validate_run(config: RunConfig) -> None:
    """Raise ConfigError for the first value out of range among the keys that all kinds of runs share."""
    require(bool(config.name), "name is empty; give the run a name")
    require(0 <= config.seed < 2**63, f"seed is {config.seed}; allowed: 0 to 2^63 - 1")
    if config.checkpoint.averages_every_kimg is not None:
        positive("checkpoint", config.checkpoint, "averages_every_kimg")
    require(
        not config.log.artifact or config.log.tracker == "wandb",
        f"log.artifact needs log.tracker: wandb; it is {config.log.tracker}",
    )
    positive("monitor", config.monitor, "patience", "lr_factor")
    require(config.monitor.window >= 2, f"monitor.window is {config.monitor.window}; allowed: 2 and above")
    not_negative("monitor", config.monitor, "max_rollbacks")
    require(config.monitor.lr_factor <= 1, f"monitor.lr_factor is {config.monitor.lr_factor}; allowed: above 0 to 1")
    above_one("monitor", config.monitor, "jump")


def check_intervals(config: RunConfig) -> None:
    """Raise ConfigError for intervals, numbers of checkpoints and uploads that a run must not start with.

    They are not part of `validate_run` because files of earlier runs may have them and must still load.
    """
    not_negative("log", config.log, "every_kimg", "samples_every_kimg")
    not_negative("eval", config.eval, "every_kimg")
    not_negative("checkpoint", config.checkpoint, "every_kimg", "keep_last", "keep_best", "milestone_kimg")
    measures = not isinstance(config, Config) or any(name.startswith("fid") for name in config.eval.metrics)
    require(
        not config.log.artifact or (config.eval.every_kimg > 0 and measures),
        "log.artifact uploads the weights with the best evaluation, but none is made: set eval.every_kimg"
        + ("" if measures else ", and fid among eval.metrics"),
    )


def check_metrics(names: Sequence[str]) -> None:
    """Raise ConfigError for the first unknown metric, with the nearest one that exists."""
    for name in names:
        require(
            name in METRICS, f"unknown metric {name!r}{did_you_mean(name, METRICS)}; there are {', '.join(METRICS)}"
        )


def _validate_evaluation(config: Config) -> None:
    positive("eval", config.eval, "num_samples", "batch_size")
    count = config.eval.reference_samples
    require(count is None or count >= 2, f"eval.reference_samples is {count}; a covariance needs two at least")
    require(bool(config.eval.metrics), f"eval.metrics is empty; there are {', '.join(METRICS)}")
    check_metrics(config.eval.metrics)
    require(
        config.eval.batch_norm != "ema" or config.train.ema_decay > 0,
        "eval.batch_norm: ema needs an average of G, which train.ema_decay: 0 does not keep",
    )


def latent_chunks(resolution: int) -> int:
    """Return the number of chunks of a hierarchical z: one for the first linear layer and one per generator block."""
    return resolution.bit_length() - 2  # 32 px: 3 blocks + 1, 128 px: 5 blocks + 1


def _validate_generator(generator: GeneratorConfig, resolution: int) -> None:
    positive("generator", generator, "channels", "latent_dim", "class_embedding_dim")
    chunks = latent_chunks(resolution)
    if generator.hierarchical:
        require(
            generator.latent_dim % chunks == 0,
            f"generator.latent_dim is {generator.latent_dim}, but a hierarchical z at {resolution} px has {chunks} "
            f"equal chunks; take {generator.latent_dim // chunks * chunks or chunks} "
            f"or {(generator.latent_dim // chunks + 1) * chunks}",
        )
        require(
            generator.conditioning == "shared",
            "generator.hierarchical needs generator.conditioning: shared (z chunks condition the batch norms)",
        )
    _validate_context("generator", generator, resolution)


def _validate_context(section: str, network: GeneratorConfig | DiscriminatorConfig, resolution: int) -> None:
    positive(section, network, "channels")
    if network.context == "none":
        return
    sizes = [size for size in (4, 8, 16, 32, 64, 128, 256, 512) if size <= resolution]
    # G has no block before its first 4x4 map; D halves first, and at 32 px its last two blocks keep 8x8.
    allowed = sizes[1:] if section == "generator" else sizes[1 if resolution == 32 else 0 : -1]
    for size in network.context_resolutions:
        require(
            size in allowed, f"{section}.context_resolutions has {size}; feature maps of this network are {allowed} px"
        )
    if network.context == "hamburger":
        validate_hamburger(f"{section}.hamburger", network.hamburger)


def validate_hamburger(section: str, ham: HamburgerConfig) -> None:
    """Raise ConfigError for the first value of a Hamburger that is out of range; ``section`` names it."""
    positive(section, ham, "rank", "heads", "steps", "cheese_factor")
    for name in ("latent_dim", "cheese_dim", "eval_steps", "temperature"):
        if getattr(ham, name) is not None:
            positive(section, ham, name)
    require(not ham.dual or ham.version == "v2+", f"{section}.dual needs {section}.version: v2+")
    require(
        ham.mode == "spatial" or ham.heads == 1, f"{section}.mode: channel needs {section}.heads: 1, not {ham.heads}"
    )
    require(0 <= ham.momentum <= 1, f"{section}.momentum is {ham.momentum}; allowed: 0 to 1")
    positive(section, ham, "ridge")


def _validate_train(train: TrainConfig) -> None:
    positive("train", train, "total_kimg", "batch_size", "accumulation", "discriminator_steps", "adam_eps")
    positive("train", train, "generator_lr", "discriminator_lr")
    if train.threads is not None:
        positive("train", train, "threads")
    require(
        train.batch_size % train.accumulation == 0,
        f"train.batch_size {train.batch_size} does not divide into train.accumulation {train.accumulation} parts",
    )
    below_one("train", train, "ema_decay", "beta1", "beta2", "lecam_decay")
    _validate_schedules(train)
    lengths = train.power_averages
    require(
        not lengths or (len(set(lengths)) == len(lengths) > 1 and all(0 < length <= 0.28 for length in lengths)),
        f"train.power_averages is {lengths}; give none, or two lengths or more above 0 to 0.28, such as 0.05,0.1",
    )
    not_negative("train", train, "orthogonal_regularisation", "r1_gamma", "r2_gamma", "lecam", "mode_seeking")
    not_negative("train", train, "ema_start_kimg")
    not_negative("train", train, "lr_warmup_kimg")
    require(0 < train.top_k <= 1, f"train.top_k is {train.top_k}; allowed: above 0 to 1")
    require(
        0 <= train.augment_probability <= 1,
        f"train.augment_probability is {train.augment_probability}; allowed: 0 to 1",
    )
    require(
        train.mode_seeking == 0 or train.loss != "relativistic",
        "train.mode_seeking draws labels in pairs; train.loss: relativistic takes those of the real images",
    )
    positive("train.finite_differences", train.finite_differences, "sigma", "stride")
    require(
        not train.finite_differences.enabled or train.r1_gamma > 0 or train.r2_gamma > 0,
        "train.finite_differences estimates R1 and R2; give train.r1_gamma or train.r2_gamma",
    )
    not_negative("train.consistency", train.consistency, "real", "fake", "latent", "spread")
    positive("train.consistency", train.consistency, "sigma")
    require(
        bool(train.consistency.transform) or not (train.consistency.real or train.consistency.fake),
        "train.consistency.transform is empty, so a copy would equal its image; name flip, shift or another",
    )


def _validate_schedules(train: TrainConfig) -> None:
    """Raise ConfigError for a schedule that cannot be read, leaves the allowed range, or has no effect."""
    schedules = {name: parse_schedule(getattr(train, name), f"train.{name}") for name in SCHEDULES}
    for name, (least, most) in {
        "lr_schedule": (0.0, math.inf),
        "gamma_schedule": (0.0, math.inf),
        "beta2_schedule": (0.0, 1.0 - 1e-9),
        "top_k_schedule": (1e-9, 1.0),
        "augment_schedule": (0.0, 1.0),
    }.items():
        target = schedules[name].target
        require(
            schedules[name].is_constant or least <= target <= most,
            f"train.{name} ends at {target:g}; allowed are the values that {' and '.join(SCHEDULES[name])} can have",
        )
    for name, moves in (
        ("gamma_schedule", train.r1_gamma > 0 or train.r2_gamma > 0),
        ("augment_schedule", bool(train.augment)),
    ):
        needed = {"gamma_schedule": "r1_gamma or r2_gamma", "augment_schedule": "augment"}[name]
        require(schedules[name].is_constant or moves, f"train.{name} has no effect without train.{needed}")


def _validate_monitor(monitor: MonitorConfig) -> None:
    above_one("monitor", monitor, "sigma_jump", "fid_jump")
    below_one("monitor", monitor, "diversity_floor")
