"""Define a configuration; the text below a field is its documentation, also in ``--help``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hamgan.config.networks import DiscriminatorConfig, GeneratorConfig
from hamgan.config.training import TrainConfig

BatchNormStatistics = Literal["running", "standing", "ema"]
"""running: those of G itself; standing: made anew from many batches; ema: averages of the running ones."""


@dataclass
class DataConfig:
    """Choose the training images."""

    source: str = "photos"
    """photos (crops of scikit-image's photographs), fashion (articles of a shop), a prepared store, a folder of class
    folders, archives, shards, cifar10, cifar100 or hf:NAME."""
    split: str = "train"
    """Split of the source to train on."""
    selection: str | None = None
    """Index of `hamgan prepare select`: train on the images that it names alone."""
    selected: str | None = None
    """What the selection holds, for the protocols of evaluations; null reads it at the start of training."""
    num_classes: int | None = None
    """Number of classes; null reads it from the source at the start of training."""
    flip: bool = False
    """Mirror half of the training images left to right."""
    prefetch: int = 3
    """Batches prepared ahead by the background thread."""


@dataclass
class LogConfig:
    """Choose what is written while training."""

    every_kimg: float = 1.0
    """Interval of rows in metrics.jsonl and on the screen."""
    samples_every_kimg: float = 100.0
    """Interval of sample sheets; 0 draws none."""
    sample_classes: int = 8
    """Rows of a sheet: the first classes."""
    samples_per_class: int = 8
    """Columns of a sheet."""
    tracker: Literal["none", "wandb", "tensorboard"] = "none"
    """Tracker that gets rows and sheets, besides the run folder."""
    project: str | None = None
    """Project at wandb, folder of TensorBoard's files in the run folder; null takes WANDB_PROJECT, else hamgan."""
    artifact: bool = False
    """Upload the generator with the lowest FID so far to wandb, as the next version of an artifact."""


@dataclass
class CheckpointConfig:
    """Choose which checkpoints are written and kept."""

    every_kimg: float = 500.0
    """Interval of checkpoints; one is always written at the end and on a signal."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 2
    """Checkpoints with the best score (lowest FID, highest mIoU) that are kept as well."""
    milestone_kimg: float = 0.0
    """Checkpoints at multiples of this are kept for good; 0 keeps none."""
    averages_every_kimg: float | None = None
    """Interval of what is kept of `train.power_averages`, with a checkpoint; null takes a 64th of the run. The end of a
    run is always kept."""
    on_full_disk: Literal["stop", "continue"] = "stop"
    """Reaction to a file that cannot be written: stop with a sentence, or warn and try again at the next interval."""


@dataclass
class MonitorConfig:
    """Watch for divergence and collapse.

    The signs follow Brock et al. 2018 (BigGAN), section 4, which names no thresholds; these are ours. Rows of
    five healthy short runs (preset photos, seeds 0 to 4) went to 1.4 times the usual margin, 3.1 times the
    usual gradient norm, 1.24 times the usual singular value and 0.67 of the usual spread. Besides these, rows in which
    G gets no gradient at all are out of line: D has died.
    """

    action: Literal["rollback", "stop", "warn"] = "rollback"
    """Return to the last good checkpoint and go on with other data and noise; or stop; or only warn. Values that are
    not finite always end in one of the first two."""
    max_rollbacks: int = 3
    """Then the run stops."""
    lr_factor: float = 1.0
    """Both learning rates are multiplied by this at each rollback."""
    patience: int = 3
    """Rows in a row that must be out of line; single spikes of gradients belong to healthy runs (section 4.1)."""
    window: int = 10
    """Rows whose median is the usual value; judging starts after half as many."""
    jump: float = 20.0
    """D's margin (real minus generated logits) and the gradient norms: times the usual value."""
    sigma_jump: float = 2.0
    """Top singular value of a layer: times the usual value (section 4.1: it explodes at collapse)."""
    diversity_floor: float = 0.2
    """Differences of generated images, in a batch and within a class of the sample sheet: share of the usual value."""
    fid_jump: float = 2.0
    """FID: times the lowest so far."""


METRICS = {
    "fid": "Fréchet distance of the features",
    "is": "Inception Score of the samples",
    "kid": "kernel distance, mean and spread over subsets",
    "prc": "precision and recall by nearest neighbours",
    "density_coverage": "density and coverage by nearest neighbours",
    "mind": "Monge distance of the features along random directions, meaningful from a few thousand images on",
    "sfid": "Fréchet distance of Inception's spatial features",
    "fd_dinov2": "Fréchet distance of DINOv2's features",
    "clip_fid": "Fréchet distance of CLIP's features",
    "cmmd": "maximum mean discrepancy of CLIP's features",
    "fid_inf": "FID extrapolated to infinitely many samples",
    "class_accuracy": "share of samples whose nearest class mean (of real training images) is their class",
    "per_class": "class by class: distance of the mean features, diversity, samples taken for another class",
}
"""Metrics of an evaluation, each with its meaning."""
Features = Literal[
    "inception", "inception-spatial", "efficientnet-lite0", "dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14-336"
]
FEATURES: tuple[str, ...] = get_args(Features)
"""Feature extractors of an evaluation."""
Resizer = Literal["native", "tensorflow", "bilinear", "clean", "pillow", "antialiased", "bicubic"]
"""Rules by which images reach an extractor's size; ``native`` is the one that its usual numbers are made with."""
OWN_EXTRACTORS = {
    "sfid": ("inception-spatial", "fid"),
    "fd_dinov2": ("dinov2-vit-l-14", "fid"),
    "clip_fid": ("clip-vit-b-32", "fid"),
    "cmmd": ("clip-vit-l-14-336", "cmmd"),
}
"""Metrics that mean one extractor, whatever the others are measured with, and what is computed of its features."""


@dataclass
class EvalConfig:
    """Choose the evaluations while training, and the defaults of `hamgan evaluate` for this run."""

    every_kimg: float = 0.0
    """Interval of evaluations while training; 0 makes none."""
    metrics: list[str] = field(default_factory=lambda: ["fid", "is"])
    """fid, is, kid, prc, density_coverage, mind, sfid, fd_dinov2, clip_fid, cmmd, fid_inf, class_accuracy or
    per_class."""
    num_samples: int = 50_000
    """Generated images."""
    reference: str | None = None
    """Reference statistics, store or folder; null takes the held-out split of the training source."""
    reference_samples: int | None = None
    """Reference images; null takes all of the split."""
    features: Features = "inception"
    """Feature extractor: inception (torch-fidelity's inception-v3-compat), efficientnet-lite0, dinov2-vit-l-14, ..."""
    batch_size: int = 64
    """Images per process and forward."""
    batch_norm: BatchNormStatistics | None = None
    """Batch-norm statistics of G: the running ones of G itself, their average (ema) as the average of G keeps it, or
    standing ones made anew; null takes those of the network that is measured."""


@dataclass
class Config:
    """Describe one experiment."""

    name: str = "hamgan"
    """Name of the run and of its folder under runs/."""
    run_dir: str | None = None
    """Folder of the run; null takes runs/NAME."""
    seed: int = 0
    """Data order, latents, labels and augmentation are functions of it and of the images seen."""
    resolution: int = 128
    """Image height and width in pixels: 32, 64, 128, 256 or 512."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Generator."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Discriminator."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logging."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """Divergence and collapse."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation."""

    @property
    def folder(self) -> Path:
        """Return the run folder."""
        return Path(self.run_dir) if self.run_dir else Path("runs") / self.name

    @property
    def images_per_step(self) -> int:
        """Return the real images that D sees per step of G."""
        return self.train.batch_size * self.train.discriminator_steps
