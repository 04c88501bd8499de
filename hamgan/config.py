"""The configuration: nested typed dataclasses, read from YAML and the command line by jsonargparse.

Every field is documented below its definition; ``scripts/train.py --help`` prints the same text.
"""

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

Context = Literal["hamburger", "attention", "none"]

RESOLUTIONS = (32, 64, 128, 256, 512)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and what is allowed."""


@dataclass
class HamburgerConfig:
    """The context block: a matrix decomposition between two 1x1 convolutions (Geng et al. 2021, section 3)."""

    decomposition: Literal["nmf", "vq", "cd"] = "nmf"
    """Matrix decomposition: non-negative factorisation, soft vector quantisation or concept decomposition."""
    version: Literal["v1", "v2", "v2+"] = "v1"
    """v1: bread, ham, bread; v2: a 'cheese' (1x1 conv, norm, ReLU) before the upper bread; v2+: learnt shortcut."""
    latent_dim: int | None = None
    """D, the channels inside the decomposition per head; null takes the channels of the feature map."""
    rank: int = 32
    """R, the number of bases."""
    heads: int = 1
    """S, the number of decompositions that share out the latent channels."""
    steps: int = 6
    """K, the update steps of the decomposition while training."""
    eval_steps: int | None = None
    """K in evaluation mode; null takes `steps`."""
    temperature: float | None = None
    """Inverse temperature of the softmax; null takes 1 for NMF and 100 for VQ and CD."""
    mode: Literal["spatial", "channel"] = "spatial"
    """Which axis holds the D features: channels at N positions, or positions at N channels."""
    dual: bool = False
    """v2+ only: half of the channels are decomposed spatially, the other half channel-wise."""
    cheese_factor: int = 1
    """v2 and v2+: the cheese has (latent channels / cheese_factor) channels."""
    cheese_dim: int | None = None
    """v2 and v2+: channels of the cheese whatever the factor (official HamGAN: those of the feature map)."""
    gradient: Literal["one_step", "unrolled"] = "one_step"
    """Differentiate the last update only (the paper, section 3.3) or all of them (Light-Ham)."""
    bases: Literal["random", "persistent"] = "random"
    """Draw initial bases for every sample and forward, or keep one set that follows the data."""
    momentum: float = 0.9
    """Persistent bases: the share of the old bases kept at an update."""
    normalise_bases: bool = False
    """L2-normalise the initial bases of NMF over D (official PyTorch code: yes, official HamGAN: no)."""
    ridge: float = 0.01
    """CD: penalty of the ridge regression that gives the coefficients (official HamGAN 0.01, PyTorch code 0.1)."""


@dataclass
class NormConfig:
    """Batch normalisation."""

    eps: float = 1e-5
    """Added to the variance (BigGAN 1e-5, official HamGAN 1e-3)."""
    momentum: float = 0.1
    """Weight of the new batch in the running statistics (BigGAN 0.1, official HamGAN 0.001)."""
    biased: bool = False
    """Store the biased variance in the running statistics (official HamGAN) instead of the unbiased one."""
    cross_replica: bool = True
    """Take the moments over the batches of all processes."""


@dataclass
class SpectralNormConfig:
    """Spectral normalisation (Miyato et al. 2018), one power iteration per training forward."""

    enabled: bool = True
    """Divide every weight by its largest singular value."""
    clamp: bool = False
    """Divide by max(1, sigma) (official HamGAN, except in the Hamburger) instead of sigma."""
    vector: Literal["output", "input"] = "output"
    """Which singular vector is stored: output side (BigGAN-PyTorch) or input side (TensorFlow)."""
    eps: float = 1e-6
    """Smallest norm that a singular vector is divided by (BigGAN's scripts 1e-6, torch's default 1e-12)."""


Init = Literal["orthogonal", "glorot", "normal"]


@dataclass
class GeneratorConfig:
    """The generator (BigGAN's residual network; the official HamGAN by other values)."""

    channels: int = 96
    """Width: channels of the last block; the others are 2 to 16 times as wide."""
    latent_dim: int = 120
    """Length of z."""
    hierarchical: bool = True
    """Split z: chunk 0 to the first linear layer, chunk i + 1 to the condition of block i."""
    conditioning: Literal["shared", "per_class"] = "shared"
    """Gains and biases of batch norm from a shared class embedding, or one gamma and beta per class."""
    class_embedding_dim: int = 128
    """Length of the shared class embedding (`conditioning: shared`)."""
    context: Context = "hamburger"
    """Global-context block."""
    context_resolutions: list[int] = field(default_factory=lambda: [64])
    """Feature-map sizes, in pixels, after which a context block stands."""
    hamburger: HamburgerConfig = field(default_factory=HamburgerConfig)
    """Used where `context` is hamburger."""
    norm: NormConfig = field(default_factory=NormConfig)
    """Batch normalisation."""
    spectral_norm: SpectralNormConfig = field(default_factory=SpectralNormConfig)
    """Spectral normalisation."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (BigGAN), Glorot uniform (SAGAN, HamGAN) or N(0, 0.02)."""


@dataclass
class DiscriminatorConfig:
    """The discriminator (projection discriminator on BigGAN's residual network)."""

    channels: int = 96
    """Width: channels of the first block; the others are 2 to 16 times as wide."""
    context: Context = "hamburger"
    """Global-context block."""
    context_resolutions: list[int] = field(default_factory=lambda: [64])
    """Feature-map sizes, in pixels, after which a context block stands."""
    hamburger: HamburgerConfig = field(default_factory=lambda: HamburgerConfig(rank=16))
    """Used where `context` is hamburger."""
    spectral_norm: SpectralNormConfig = field(default_factory=SpectralNormConfig)
    """Spectral normalisation."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (BigGAN), Glorot uniform (SAGAN, HamGAN) or N(0, 0.02)."""


@dataclass
class DataConfig:
    """Training images."""

    source: str = "photos"
    """`photos` (scikit-image's photographs), a prepared store, a folder of class folders, or `cifar10` / `cifar100`."""
    split: str = "train"
    """Split of the source to train on."""
    num_classes: int | None = None
    """Number of classes; null reads it from the source at the start of training."""
    flip: bool = False
    """Mirror half of the training images left to right."""
    prefetch: int = 3
    """Batches prepared ahead by the background thread."""


@dataclass
class TrainConfig:
    """The optimisation."""

    total_kimg: float = 100_000.0
    """Length of the run, in thousands of real images seen by D."""
    batch_size: int = 256
    """Images per optimiser step, over all processes and accumulation steps."""
    accumulation: int = 1
    """Backward passes per optimiser step; each sees batch_size / accumulation images over all processes."""
    discriminator_steps: int = 1
    """Optimiser steps of D per step of G."""
    loss: Literal["hinge", "non_saturating", "wasserstein", "relativistic"] = "hinge"
    """Adversarial loss."""
    generator_lr: float = 1e-4
    """Learning rate of G."""
    discriminator_lr: float = 4e-4
    """Learning rate of D."""
    beta1: float = 0.0
    """Adam's decay of the first moment."""
    beta2: float = 0.999
    """Adam's decay of the second moment."""
    adam_eps: float = 1e-6
    """Adam's epsilon (BigGAN 1e-6; official HamGAN 1e-8)."""
    adam_eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Add epsilon after (torch) or before (TensorFlow) the bias correction of the second moment."""
    orthogonal_regularisation: float = 0.0
    """Strength of BigGAN's off-diagonal orthogonal regularisation of G."""
    r1_gamma: float = 0.0
    """Weight of the R1 penalty: gamma / 2 * |grad D(real)|^2 (Mescheder et al. 2018)."""
    r2_gamma: float = 0.0
    """Weight of the R2 penalty: gamma / 2 * |grad D(fake)|^2."""
    lecam: float = 0.0
    """Weight of the LeCam regularisation (Tseng et al. 2021); needs `lecam_decay` averages of D's logits."""
    lecam_decay: float = 0.99
    """Decay of LeCam's averages, per D step."""
    augment: list[Literal["color", "translation", "cutout"]] = field(default_factory=list)
    """DiffAugment (Zhao et al. 2020) on real and generated images in front of D."""
    ema_decay: float = 0.9999
    """Decay per G step of the average of G's weights and buffers; 0 keeps none."""
    ema_start_kimg: float = 0.0
    """Until then the average is a copy of G."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 on a GPU that has it, fp32 elsewhere. Losses, logits and decompositions stay in fp32."""
    tf32: bool = False
    """Allow TF32 in fp32 convolutions and matrix products on NVIDIA GPUs."""
    compile: bool = False
    """Compile both networks by torch.compile."""
    threads: int | None = None
    """CPU threads per process; null keeps torch's choice."""


@dataclass
class LogConfig:
    """What is written while training."""

    every_kimg: float = 1.0
    """Interval of rows in metrics.jsonl and on the screen."""
    samples_every_kimg: float = 100.0
    """Interval of sample sheets; 0 draws none."""
    sample_classes: int = 8
    """Rows of a sheet: the first classes."""
    samples_per_class: int = 8
    """Columns of a sheet."""
    tracker: Literal["none", "wandb", "tensorboard"] = "none"
    """Where rows and sheets go besides the run folder."""
    project: str = "hamgan"
    """Project name at the tracker."""


@dataclass
class CheckpointConfig:
    """What is kept."""

    every_kimg: float = 500.0
    """Interval of checkpoints; one is always written at the end and on a signal."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 2
    """Checkpoints with the lowest FID that are kept as well."""
    milestone_kimg: float = 0.0
    """Checkpoints at multiples of this are kept for good; 0 keeps none."""


@dataclass
class EvalConfig:
    """Evaluation while training and the defaults of scripts/evaluate.py for this run."""

    every_kimg: float = 0.0
    """Interval of evaluations while training; 0 makes none."""
    metrics: list[str] = field(default_factory=lambda: ["fid", "is"])
    """fid, is, kid, prc."""
    num_samples: int = 50_000
    """Generated images."""
    reference: str | None = None
    """Reference statistics, store or folder; null takes the held-out split of the training source."""
    features: str = "inception"
    """Feature extractor: inception (torch-fidelity's inception-v3-compat) or efficientnet-lite0."""
    batch_size: int = 64
    """Images per process and forward."""
    batch_norm: Literal["running", "standing"] = "running"
    """Batch-norm statistics of G: the stored (EMA'd running) ones, or standing ones made anew."""


@dataclass
class Config:
    """One experiment."""

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
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation."""

    def validate(self) -> None:
        """Check the values together; raises ConfigError for the first that does not fit."""
        _require(self.resolution in RESOLUTIONS, f"resolution is {self.resolution}; allowed: {RESOLUTIONS}")
        _validate_generator(self.generator, self.resolution)
        _validate_context("discriminator", self.discriminator, self.resolution // 2)
        _validate_train(self.train)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run_dir) if self.run_dir else Path("runs") / self.name


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _positive(section: str, values: Any, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        _require(value > 0, f"{section}.{name} is {value}; it must be positive")


def latent_chunks(resolution: int) -> int:
    """Chunks of a hierarchical z: one for the first linear layer and one per generator block."""
    return resolution.bit_length() - 2  # 32 px: 3 blocks + 1, 128 px: 5 blocks + 1


def _validate_generator(generator: GeneratorConfig, resolution: int) -> None:
    _positive("generator", generator, "channels", "latent_dim", "class_embedding_dim")
    chunks = latent_chunks(resolution)
    if generator.hierarchical:
        _require(
            generator.latent_dim % chunks == 0,
            f"generator.latent_dim is {generator.latent_dim}, but a hierarchical z at {resolution} px has {chunks} "
            f"equal chunks; take {generator.latent_dim // chunks * chunks or chunks} "
            f"or {(generator.latent_dim // chunks + 1) * chunks}",
        )
        _require(
            generator.conditioning == "shared",
            "generator.hierarchical needs generator.conditioning: shared (z chunks condition the batch norms)",
        )
    _validate_context("generator", generator, resolution)


def _validate_context(section: str, network: GeneratorConfig | DiscriminatorConfig, largest: int) -> None:
    _positive(section, network, "channels")
    if network.context == "none":
        return
    allowed = [size for size in (4, 8, 16, 32, 64, 128, 256, 512) if size <= largest]
    if section == "generator":
        allowed = allowed[1:]  # the 4x4 start has no block in front of it
    for size in network.context_resolutions:
        _require(
            size in allowed, f"{section}.context_resolutions has {size}; feature maps of this network are {allowed} px"
        )
    if network.context == "hamburger":
        _validate_hamburger(f"{section}.hamburger", network.hamburger)


def _validate_hamburger(section: str, ham: HamburgerConfig) -> None:
    _positive(section, ham, "rank", "heads", "steps", "cheese_factor")
    for name in ("latent_dim", "cheese_dim"):
        if getattr(ham, name) is not None:
            _positive(section, ham, name)
    _require(not ham.dual or ham.version == "v2+", f"{section}.dual needs {section}.version: v2+")
    _require(
        ham.mode == "spatial" or ham.heads == 1, f"{section}.mode: channel needs {section}.heads: 1, not {ham.heads}"
    )
    _require(0 <= ham.momentum <= 1, f"{section}.momentum is {ham.momentum}; allowed: 0 to 1")
    _positive(section, ham, "ridge")


def _validate_train(train: TrainConfig) -> None:
    _positive("train", train, "total_kimg", "batch_size", "accumulation", "discriminator_steps", "adam_eps")
    _require(
        train.batch_size % train.accumulation == 0,
        f"train.batch_size {train.batch_size} does not divide into train.accumulation {train.accumulation} parts",
    )
    _require(0 <= train.ema_decay < 1, f"train.ema_decay is {train.ema_decay}; allowed: 0 to below 1")
    for name in ("beta1", "beta2"):
        _require(0 <= getattr(train, name) < 1, f"train.{name} is {getattr(train, name)}; allowed: 0 to below 1")


def config_parser(**kwargs: Any) -> ArgumentParser:
    """A parser whose options are the fields of Config: ``--config FILE`` then ``--section.key value``."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    parser.add_class_arguments(Config, as_group=False)
    return parser


def known_keys() -> list[str]:
    """All dotted keys of a configuration, e.g. ``train.batch_size``."""

    def walk(cls: Any, prefix: str) -> list[str]:
        keys: list[str] = []
        for item in dataclasses.fields(cls):
            default = item.default_factory() if callable(item.default_factory) else item.default
            keys.append(prefix + item.name)
            if dataclasses.is_dataclass(default):
                keys += walk(type(default), f"{prefix}{item.name}.")
        return keys

    return walk(Config, "")


def check_keys(keys: list[str], where: str) -> None:
    """Raise ConfigError for the first key that no configuration has, naming the nearest one that exists."""
    known = known_keys()
    for key in keys:
        if key not in known:
            # The last part decides: `train.batchsize` should find `train.batch_size`, `lr` `train.generator_lr`.
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or difflib.get_close_matches(
                key.rsplit(".", 1)[-1], [name.rsplit(".", 1)[-1] for name in known], n=1, cutoff=0.6
            )
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"unknown key `{key}` in {where}{hint}")


def _flatten(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _flatten(value, f"{prefix}{key}.")
    return keys


def _check_file(path: Path) -> None:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        names = sorted(str(item) for item in folder.glob("*.yaml"))
        near = difflib.get_close_matches(str(path), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no configuration file at {path}{hint}")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not a {type(values).__name__}")
    check_keys(_flatten(values or {}), str(path))


def parse_config(arguments: list[str], parser: ArgumentParser | None = None) -> tuple[Config, Namespace]:
    """Read a configuration from command-line arguments; also returns the namespace with any further options.

    Raises ConfigError with one sentence for an unknown key, a wrong type or values that do not fit together.
    """
    parser = parser or config_parser()
    own = {action.dest for action in parser._actions}
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            _check_file(Path(value or (arguments[position + 1] if position + 1 < len(arguments) else "")))
        elif name.startswith("--") and name[2:] not in own:
            check_keys([name[2:].removesuffix("+")], "the command line")
    try:
        namespace = parser.parse_args(arguments)
    except Exception as error:
        raise ConfigError(_one_sentence(str(error))) from error
    instances = parser.instantiate_classes(namespace)
    config = Config(**{item.name: getattr(instances, item.name) for item in dataclasses.fields(Config)})
    config.validate()
    return config, namespace


def _one_sentence(message: str) -> str:
    """jsonargparse explains every member of a union on a line of its own; keep it readable on one."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file and apply overrides such as ``"train.batch_size=64"``.

    Raises ConfigError (a sentence) for a missing file, unknown keys, wrong types or values that do not fit.
    """
    arguments = [] if path is None else ["--config", str(path)]
    arguments += [f"--{override.removeprefix('--')}" for override in overrides or []]
    return parse_config(arguments)[0]


def config_to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain nested values, e.g. for YAML or a safetensors header."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> Config:
    """The inverse of config_to_dict; raises ConfigError for unknown keys or wrong types."""
    check_keys(_flatten(values), "the stored configuration")
    parser = config_parser()
    try:
        namespace = parser.parse_object(values)
    except Exception as error:
        raise ConfigError(_one_sentence(str(error))) from error
    instances = parser.instantiate_classes(namespace)
    return Config(**{item.name: getattr(instances, item.name) for item in dataclasses.fields(Config)})


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False))
