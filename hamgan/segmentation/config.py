"""Read and validate a segmenter's configuration."""

import math

from hamgan.config import ConfigReader
from hamgan.config.ranges import below_one, not_negative, positive, require
from hamgan.config.validation import validate_hamburger, validate_run
from hamgan.errors import did_you_mean
from hamgan.segmentation.schema import (
    AugmentConfig,
    EncoderConfig,
    EvalConfig,
    SegmentationConfig,
    TrainConfig,
)

VAN_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((32, 64, 160, 256), (3, 3, 5, 2)),
    "small": ((64, 128, 320, 512), (2, 2, 4, 2)),
    "base": ((64, 128, 320, 512), (3, 3, 12, 3)),
    "large": ((64, 128, 320, 512), (3, 5, 27, 3)),
    "huge": ((64, 128, 320, 512), (3, 6, 40, 3)),
    "b5": ((96, 192, 480, 768), (3, 3, 24, 3)),
    "b6": ((96, 192, 384, 768), (6, 6, 90, 6)),
}
"""Channels and depths of the published Visual Attention Networks."""
DATA_SETS = ("land", "land17", "mosaic")
"""Names that are data sets even if a folder of that name exists."""
STAGES = 4
"""Number of feature maps of an encoder."""


def validate(config: SegmentationConfig) -> None:
    """Raise ConfigError for the first value that is out of range or does not fit the others."""
    validate_run(config)
    _validate_encoder(config.encoder)
    _validate_head(config)
    if config.data.num_classes is not None:
        require(
            1 <= config.data.num_classes <= 255, f"data.num_classes is {config.data.num_classes}; allowed: 1 to 255"
        )
    weights, classes = config.train.class_weights, config.data.num_classes
    require(
        weights is None or classes in (None, len(weights)),
        f"train.class_weights has {len(weights or [])} values for {classes} classes; give one for each, or null",
    )
    require(0 <= config.data.ignore_label <= 255, f"data.ignore_label is {config.data.ignore_label}; allowed: 0 to 255")
    positive("data", config.data, "prefetch")
    _validate_augment(config.augment)
    _validate_train(config.train)
    validate_evaluation(config.eval)
    positive("log", config.log, "samples")


def _validate_encoder(encoder: EncoderConfig) -> None:
    if encoder.kind == "van":
        require(
            encoder.name in VAN_SIZES,
            f"encoder.name is {encoder.name}; a VAN is {', '.join(VAN_SIZES)}{did_you_mean(encoder.name, VAN_SIZES)}",
        )
        for name in ("channels", "depths", "strides"):
            values = getattr(encoder, name)
            require(
                values is None or (len(values) == STAGES and min(values) > 0),
                f"encoder.{name} is {values}; a VAN has {STAGES} stages, each with a positive number",
            )
    require(
        encoder.output_stride in (8, 16, 32), f"encoder.output_stride is {encoder.output_stride}; allowed: 8, 16, 32"
    )
    below_one("encoder", encoder, "drop_path")
    require(
        encoder.multi_grid is None or min(encoder.multi_grid, default=0) > 0,
        f"encoder.multi_grid is {encoder.multi_grid}; give positive factors, such as [1, 2, 4]",
    )
    require(0 < encoder.norm_momentum <= 1, f"encoder.norm_momentum is {encoder.norm_momentum}; allowed: above 0 to 1")


def _validate_head(config: SegmentationConfig) -> None:
    head = config.head
    positive("head", head, "channels", "ham_channels", "groups")
    below_one("head", head, "dropout")
    stages = range(STAGES)
    require(
        bool(head.stages) and all(stage in stages for stage in head.stages) and head.stages == sorted(set(head.stages)),
        f"head.stages is {head.stages}; allowed: some of {list(stages)} in this order",
    )
    require(
        head.kind == "light_ham" or len(head.stages) == 1,
        f"head.kind: ham takes one stage, such as [3]; head.stages is {head.stages}",
    )
    require(not head.concat_input or head.kind == "ham", "head.concat_input needs head.kind: ham")
    if head.norm == "group":
        normed = {"head.channels": head.channels, "head.ham_channels": head.ham_channels}
        normed |= {"auxiliary.channels": config.auxiliary.channels} if config.auxiliary.weight > 0 else {}
        for name, value in normed.items():
            require(value % head.groups == 0, f"{name} {value} does not divide into head.groups {head.groups} groups")
    if head.context == "hamburger":
        validate_hamburger("head.hamburger", head.hamburger)
        require(
            head.hamburger.mode == "spatial" and not head.hamburger.dual,
            "head.hamburger needs mode: spatial and dual: false, because images have any size",
        )
    not_negative("auxiliary", config.auxiliary, "weight")
    positive("auxiliary", config.auxiliary, "channels")
    require(config.auxiliary.stage in stages, f"auxiliary.stage is {config.auxiliary.stage}; allowed: {list(stages)}")


def _validate_augment(augment: AugmentConfig) -> None:
    positive("augment", augment, "long_side", "short_side", "crop")
    require(
        len(augment.scale) == 2 and 0 < augment.scale[0] <= augment.scale[1],
        f"augment.scale is {augment.scale}; give the least and the greatest, such as [0.5, 2.0]",
    )
    for name in ("max_class_share", "flip"):
        value = getattr(augment, name)
        require(0 <= value <= 1, f"augment.{name} is {value}; allowed: 0 to 1")


def _validate_train(train: TrainConfig) -> None:
    positive("train", train, "total_kimg", "batch_size", "accumulation", "lr")
    if train.threads is not None:
        positive("train", train, "threads")
    require(
        train.batch_size % train.accumulation == 0,
        f"train.batch_size {train.batch_size} does not divide into train.accumulation {train.accumulation} parts",
    )
    below_one("train", train, "beta1", "beta2", "momentum", "ema_decay")
    not_negative("train", train, "weight_decay", "head_lr_factor", "power", "min_lr", "warmup_kimg", "clip_gradient")
    weights = train.class_weights
    require(
        weights is None or (min(weights, default=0) >= 0 and 0 < sum(weights) < math.inf),
        f"train.class_weights is {weights}; give a number of 0 or more for every class",
    )
    require(0 <= train.warmup_ratio <= 1, f"train.warmup_ratio is {train.warmup_ratio}; allowed: 0 to 1")
    require(train.min_lr <= train.lr, f"train.min_lr {train.min_lr} is above train.lr {train.lr}")


def validate_evaluation(evaluation: EvalConfig) -> None:
    """Raise ConfigError for values of an evaluation that are out of range or do not fit the others."""
    positive("eval", evaluation, "batch_size", "long_side", "window", "stride")
    for name in ("short_side", "size_divisor", "images"):
        if getattr(evaluation, name) is not None:
            positive("eval", evaluation, name)
    require(
        bool(evaluation.scales) and all(0 < scale < math.inf for scale in evaluation.scales),
        f"eval.scales is {evaluation.scales}; give one or more, such as [1.0]",
    )
    require(bool(evaluation.bases_seeds), "eval.bases_seeds is empty; give one or more, such as [0]")
    require(
        evaluation.stride <= evaluation.window,
        f"eval.stride {evaluation.stride} is above eval.window {evaluation.window}: windows would leave gaps",
    )


SEGMENTATION = ConfigReader(SegmentationConfig, validate, section="segmentation")
"""Reader of segmenter configurations in files, presets, options and file headers."""

load_config = SEGMENTATION.load
