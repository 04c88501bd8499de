"""Define a configuration; the text below a field is its documentation, also in ``--help``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hamgan.config.networks import DiscriminatorConfig, GeneratorConfig
from hamgan.config.training import TrainConfig

BatchNormStatistics = Literal["running", "standing", "ema"]
"""Statistics of G: running (its own), standing (computed anew) or ema (an average of the running ones)."""


@dataclass
class DataConfig:
    """Choose the training images."""

    source: str = "photos"
    """photos (crops of scikit-image's photographs), fashion (clothes, shoes and bags), a prepared store, a folder of
    class folders, archives, shards, cifar10, cifar100 or hf:NAME."""
    split: str = "train"
    """Split of the source to train on."""
    selection: str | None = None
    """Index written by `hamgan prepare select`: train only on the images that it lists."""
    selected: str | None = None
    """Description of the selection for the protocols of evaluations; null reads it at the start of training."""
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
    """Tracker that gets rows and sheets, in addition to the run folder."""
    project: str | None = None
    """Project in wandb, or folder of TensorBoard's files in the run folder; null takes WANDB_PROJECT, else hamgan."""
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
    """Interval at which `train.power_averages` are stored, together with a checkpoint; null takes a 64th of the run.
    They are always stored at the end of a run."""
    on_full_disk: Literal["stop", "continue"] = "stop"
    """Reaction to a file that cannot be written: stop with an error, or warn and try again at the next interval."""


@dataclass
class MonitorConfig:
    """Watch for divergence and collapse.

    The signs follow Brock et al. 2018 (BigGAN), section 4, which names no thresholds; these are ours. Rows of
    five healthy short runs (preset photos, seeds 0 to 4) reached 1.4 times the usual margin, 3.1 times the usual
    gradient norm, 1.24 times the usual singular value and 0.67 of the usual diversity. A row in which G gets no
    gradient at all is suspicious too: D has died.
    """

    action: Literal["rollback", "stop", "warn"] = "rollback"
    """rollback: return to the last good checkpoint and go on with other data and noise; stop: end the run; warn: only
    warn, but stop when a value is not finite."""
    max_rollbacks: int = 3
    """Rollbacks after which the run stops instead."""
    lr_factor: float = 1.0
    """Both learning rates are multiplied by this at each rollback."""
    patience: int = 3
    """Consecutive rows that must exceed a threshold; healthy runs have single spikes of gradients (section 4.1)."""
    window: int = 10
    """Number of previous rows whose median is the usual value; monitoring starts after half as many."""
    jump: float = 20.0
    """Threshold of D's margin (real minus generated logits) and of the gradient norms, in times the usual value."""
    sigma_jump: float = 2.0
    """Threshold of a layer's top singular value, in times the usual one (section 4.1: it explodes at collapse)."""
    diversity_floor: float = 0.2
    """Lowest allowed diversity, of a batch and within a class of the sample sheet, as a share of the usual value."""
    fid_jump: float = 2.0
    """Threshold of the FID, in times the lowest so far."""


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
    "per_class": "per class: distance of the mean features, diversity, samples classified as another class",
}
"""Metrics of an evaluation, each with its meaning."""
Features = Literal[
    "inception", "inception-spatial", "efficientnet-lite0", "dinov2-vit-l-14", "clip-vit-b-32", "clip-vit-l-14-336"
]
FEATURES: tuple[str, ...] = get_args(Features)
"""Feature extractors of an evaluation."""
Resizer = Literal["native", "tensorflow", "bilinear", "clean", "pillow", "antialiased", "bicubic"]
"""Rules for resizing images to an extractor's size; ``native`` is the extractor's usual one."""
OWN_EXTRACTORS = {
    "sfid": ("inception-spatial", "fid"),
    "fd_dinov2": ("dinov2-vit-l-14", "fid"),
    "clip_fid": ("clip-vit-b-32", "fid"),
    "cmmd": ("clip-vit-l-14-336", "cmmd"),
}
"""Metrics with an extractor of their own, whatever `eval.features` says: name -> (extractor, what is computed)."""


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
    """File of statistics, store or folder; null takes the held-out split of the training source."""
    reference_samples: int | None = None
    """Reference images; null takes all of the split."""
    features: Features = "inception"
    """Feature extractor: inception (torch-fidelity's inception-v3-compat), efficientnet-lite0, dinov2-vit-l-14, ..."""
    batch_size: int = 64
    """Images per process and forward."""
    batch_norm: BatchNormStatistics | None = None
    """Batch-norm statistics of G: running (G's own), ema (their average, which the average of G keeps) or standing
    (computed anew); null takes those stored with the network that is measured."""


@dataclass
class Config:
    """Describe one experiment."""

    name: str = "hamgan"
    """Name of the run and of its folder under runs/."""
    run_dir: str | None = None
    """Folder of the run; null takes runs/NAME."""
    seed: int = 0
    """Seed of data order, latents, labels and augmentation, which depend on it and the images seen alone."""
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
