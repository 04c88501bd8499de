"""Define the configuration of a segmenter and its training; the text below a field is its documentation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hamgan.config import CheckpointConfig, HamburgerConfig

Layout = Literal["auto", "folders", "ade20k", "pascal_context", "pascal_context_59", "voc", "cityscapes"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
"""Arrangements of a folder's files."""


@dataclass
class EncoderConfig:
    """Choose the network that turns an image into feature maps of several strides."""

    kind: Literal["van", "timm"] = "van"
    """van: the Visual Attention Network (Guo et al. 2022); timm: any network of timm that gives feature maps."""
    name: str = "small"
    """Size of a VAN (tiny, small, base, large, huge, b5, b6), or the name of a network of timm, such as resnet101c."""
    channels: list[int] | None = None
    """VAN: channels of its four stages; null takes those of the size."""
    depths: list[int] | None = None
    """VAN: blocks of its four stages; null takes those of the size."""
    strides: list[int] = field(default_factory=lambda: [4, 2, 2, 2])
    """VAN: strides of its four stages: 4, 2, 2, 2 (Light-Ham) or 4, 2, 1, 1 (HamNet)."""
    drop_path: float = 0.1
    """VAN: probability that the last block's branches are skipped for a sample; it grows linearly from 0."""
    output_stride: int = 8
    """timm: stride of its last feature map; later stages are dilated instead."""
    multi_grid: list[int] | None = None
    """timm's ResNets: factors of the dilations in the last stage's blocks (1, 2, 4 in the paper's HamNet)."""
    norm_momentum: float = 0.1
    """Weight of the new batch in the running statistics of every batch norm, including the head's."""
    weights: str | None = None
    """Weights to start from: a file, hf:OWNER/NAME on a hub, or none for random ones; must be given."""


@dataclass
class HeadConfig:
    """Choose the head, which models global context and classifies every position."""

    kind: Literal["light_ham", "ham"] = "light_ham"
    """light_ham: several stages, concatenated at the first one's size, and 1x1 convolutions; ham: one stage and 3x3."""
    stages: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Stages of the encoder that are the head's input, counted from 0."""
    channels: int = 512
    """Channels before the classifier."""
    ham_channels: int = 512
    """Channels of the Hamburger."""
    concat_input: bool = False
    """ham: concatenate the head's input to its features (HamNet+)."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation after convolutions."""
    groups: int = 32
    """Number of groups of group normalisation."""
    dropout: float = 0.1
    """Probability of zeroing a channel before the classifier."""
    context: Literal["hamburger", "none"] = "hamburger"
    """Global context."""
    hamburger: HamburgerConfig = field(
        default_factory=lambda: HamburgerConfig(rank=64, eval_steps=7, normalise_bases=True, gradient="unrolled")
    )
    """Used if `context` is hamburger."""
    align_corners: bool = False
    """Resize feature maps and logits so that the centres of the corner pixels agree (the paper's HamNet)."""


@dataclass
class AuxiliaryConfig:
    """Choose the auxiliary head, which is used only in training (Zhao et al. 2017)."""

    weight: float = 0.0
    """Weight of its loss; 0 builds no auxiliary head."""
    stage: int = 2
    """Stage of the encoder that is its input, counted from 0."""
    channels: int = 256
    """Channels before its classifier."""


@dataclass
class DataConfig:
    """Choose the images and their label maps."""

    source: str = "mosaic"
    """land or land17 (satellite picture with 8 or 17 classes of land cover), mosaic (textures with exact labels) or a
    folder."""
    layout: Layout = "auto"
    """Arrangement of a folder's files; auto recognises it."""
    classes: str | None = None
    """YAML file of the classes: a list of names, or of names with colours; null takes those of the source."""
    num_classes: int | None = None
    """Number of classes; null reads it from the source at the start of training."""
    split: str = "train"
    """Split of the source to train on."""
    reduce_zero_label: bool = False
    """Ignore label 0, and number the classes from label 1 on (ADE20K)."""
    ignore_label: int = 255
    """Label of pixels to ignore in the loss and in metrics."""
    threads: int | None = None
    """Threads that read and augment images; null takes one per core of the process."""
    prefetch: int = 3
    """Batches prepared ahead."""


@dataclass
class AugmentConfig:
    """Choose the augmentation of training images, in the order of the fields."""

    long_side: int = 2048
    """Upper limit, in pixels, of the longer side before the random scale."""
    short_side: int = 512
    """Size, in pixels, of the shorter side before the random scale, less if the longer one would exceed `long_side`."""
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])
    """Range of the random scale; both sides are multiplied by it."""
    antialias: bool = False
    """Antialias when shrinking images (the references do not)."""
    crop: int = 512
    """Height and width of a training image in pixels."""
    max_class_share: float = 0.75
    """A crop is drawn again, up to ten times, if one class has this share of its labelled pixels; 1 accepts any."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue at random."""


@dataclass
class TrainConfig:
    """Choose optimiser, schedule, loss and precision."""

    total_kimg: float = 2560.0
    """Length of the run, in thousands of images seen (2560: 160,000 steps of 16 images)."""
    batch_size: int = 16
    """Images per optimiser step, over all processes and accumulation steps."""
    accumulation: int = 1
    """Backward passes per optimiser step; each sees batch_size / accumulation images over all processes."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser."""
    lr: float = 6e-5
    """Learning rate, before schedule and warm-up."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.999
    """AdamW's decay of the second moment."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.01
    """Weight decay of all parameters except those of `no_decay`."""
    no_decay: list[str] = field(default_factory=lambda: ["encoder*norm"])
    """Parameters without weight decay: their names contain one of these patterns; ``*`` matches anything."""
    head_lr_factor: float = 1.0
    """Factor on the learning rate of the heads."""
    power: float = 1.0
    """Exponent of the schedule: min_lr + (lr - min_lr) * (1 - progress) ** power."""
    min_lr: float = 0.0
    """Learning rate at the end."""
    warmup_kimg: float = 24.0
    """Linear warm-up of the learning rate, in thousands of images (24: 1,500 steps of 16 images)."""
    warmup_ratio: float = 1e-6
    """Factor on the learning rate at the start of the warm-up."""
    loss_average: Literal["all", "valid"] = "all"
    """Divide the loss by all pixels (the references) or by those that are not ignored."""
    class_weights: list[float] | None = None
    """Factors on the losses of each class, in the order of the classes; null weighs all classes equally."""
    clip_gradient: float = 0.0
    """Largest allowed norm of the gradient; 0 does not clip."""
    ema_decay: float = 0.0
    """Decay, per step, of the average of the weights, which is then evaluated; 0 keeps no average."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: the precision of `accelerate launch`; without a launcher bf16 on a GPU that has it and on a CPU with AMX,
    fp32 elsewhere. Losses and decompositions stay in fp32."""
    tf32: bool = False
    """Allow TF32 in fp32 convolutions and matrix products of training steps on NVIDIA GPUs."""
    compile: bool = False
    """Compile the network with torch.compile."""
    threads: int | None = None
    """CPU threads of a step, per process; null takes every core."""


@dataclass
class EvalConfig:
    """Choose the evaluations while training, and the defaults of `hamgan segment evaluate` for this run."""

    every_kimg: float = 0.0
    """Interval of evaluations while training; 0 makes none."""
    split: str | None = None
    """Split to evaluate on; null takes the held-out one of the source."""
    images: int | None = None
    """Evaluate only the first images, this many; null takes all."""
    batch_size: int = 1
    """Images of one size per process and forward pass."""
    short_side: int | None = 512
    """Size, in pixels, of the shorter side, less if the longer one would exceed `long_side`; null does not resize."""
    long_side: int = 2048
    """Upper limit, in pixels, of the longer side."""
    size_divisor: int | None = None
    """Stretch both sides up to a multiple of this (Light-Ham's tests: 32); null does not."""
    scales: list[float] = field(default_factory=lambda: [1.0])
    """Scales whose probabilities are averaged (published numbers: 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)."""
    flip: bool = False
    """Average with the prediction of the mirrored image at every scale."""
    mode: Literal["whole", "slide"] = "whole"
    """Predict the whole image at once, or overlapping windows."""
    window: int = 512
    """Height and width of a window in pixels."""
    stride: int = 341
    """Distance between windows in pixels."""
    bases_seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the Hamburger's initial bases; several report mean and spread."""


@dataclass
class LogConfig:
    """Choose what is written while training."""

    every_kimg: float = 1.0
    """Interval of rows in metrics.jsonl and on the screen."""
    samples_every_kimg: float = 100.0
    """Interval of sheets of image, truth and prediction; 0 draws none."""
    samples: int = 6
    """Rows of a sheet: held-out images, spread evenly over the split."""
    tracker: Literal["none", "wandb", "tensorboard"] = "none"
    """Tracker that gets rows and sheets, in addition to the run folder."""
    project: str | None = None
    """Project in wandb, or folder of TensorBoard's files in the run folder; null takes WANDB_PROJECT, else hamgan."""
    artifact: bool = False
    """Upload the segmenter with the highest mIoU so far to wandb, as the next version of an artifact."""


@dataclass
class MonitorConfig:
    """Watch for divergence."""

    action: Literal["rollback", "stop", "warn"] = "rollback"
    """rollback: return to the last good checkpoint and go on with other data; stop: end the run; warn: only warn, but
    stop when a value is not finite."""
    max_rollbacks: int = 3
    """Rollbacks after which the run stops instead."""
    lr_factor: float = 1.0
    """The learning rate is multiplied by this at each rollback."""
    patience: int = 3
    """Consecutive rows that must exceed a threshold."""
    window: int = 10
    """Number of previous rows whose median is the usual value; monitoring starts after half as many."""
    jump: float = 20.0
    """Threshold of loss and gradient norm, in times the usual value."""


@dataclass
class SegmentationConfig:
    """Describe one experiment in semantic segmentation."""

    name: str = "segmenter"
    """Name of the run and of its folder under runs/."""
    run_dir: str | None = None
    """Folder of the run; null takes runs/NAME."""
    seed: int = 0
    """Seed of initial weights, data order, augmentation and noise, which depend on it and the images seen alone."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Encoder."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """Head."""
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    """Auxiliary head."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """Divergence."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation."""

    @property
    def folder(self) -> Path:
        """Return the run folder."""
        return Path(self.run_dir) if self.run_dir else Path("runs") / self.name

    @property
    def images_per_step(self) -> int:
        """Return the images that a step sees."""
        return self.train.batch_size
