"""Extract features and logits from uint8 images, on any device."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hamgan.config import FEATURES, OWN_EXTRACTORS
from hamgan.distributed.cores import core_count, map_on_cores
from hamgan.errors import ConfigError, did_you_mean, one_line
from hamgan.evaluation.features import efficientnet, inception
from hamgan.evaluation.features.clip import ClipImageEncoder, published_clip
from hamgan.evaluation.features.dinov2 import PUBLISHED as DINOV2_WEIGHTS
from hamgan.evaluation.features.dinov2 import load_dinov2
from hamgan.evaluation.features.resizing import RESIZING
from hamgan.evaluation.features.weights import PublishedWeights, find_weights_on_every_process
from hamgan.files import sha256
from hamgan.hamburger.precision import using_tf32
from hamgan.sampling.generator import find_device


class Network(Protocol):
    """Map float pixels 0 to 255 [B, 3, S, S] of its own size to features [B, D] and, if it has them, logits [B, C]."""

    def forward_resized(self, x: Tensor) -> tuple[Tensor, ...]: ...

    def to(self, device: torch.device) -> "Network": ...

    def eval(self) -> "Network": ...


class Family(NamedTuple):
    """Group networks of the same training data and task, whose numbers are biased in the same way."""

    name: str
    saw: str
    """The data that the networks were trained on."""


CLASSIFIERS = Family("ImageNet classifiers", "ImageNet-1k with labels")
SELF_SUPERVISED = Family(
    "DINOv2", "142 million pictures of the web, chosen by their likeness to ImageNet-22k and others, without labels"
)
CAPTIONED = Family("CLIP", "400 million captioned pictures of the web")


@dataclass(frozen=True)
class Architecture:
    """Describe an extractor: its network, its weights file, and how images are resized for it."""

    label: str
    """Name in protocols."""
    dimension: int
    """Length of a feature."""
    size: int
    """Height and width of the network's input in pixels."""
    resizers: tuple[str, ...]
    """Allowed names in `RESIZING`, the usual one first."""
    load: Callable[[Path], Network]
    weights: PublishedWeights | Path
    """The published file, or a file in an installed package."""
    family: Family
    classes: int = 0
    """Length of the logits; 0 if there are none."""
    cpu_chunk: int = 4
    """Images per forward pass on a CPU core, so that activations fit into its cache. From 8 on EfficientNet takes up to
    twice as long per image; Inception is equally fast from 4 to 16; CLIP's ViT-B/32, with 50 tokens per image, is
    fastest with 16 (0.85 of the time of 4)."""


ARCHITECTURES = {
    "inception": Architecture(
        "inception-v3-compat",
        2048,
        299,
        ("tensorflow", "clean"),
        inception.FoldedInception,
        inception.PUBLISHED,
        CLASSIFIERS,
        classes=1008,
        cpu_chunk=8,
    ),
    "inception-spatial": Architecture(
        "inception-v3-compat mixed_6/conv",
        2023,
        299,
        ("tensorflow", "clean"),
        inception.SpatialInception,
        inception.PUBLISHED,
        CLASSIFIERS,
        cpu_chunk=8,
    ),
    "efficientnet-lite0": Architecture(
        "efficientnet-lite0",
        1280,
        224,
        ("bilinear", "clean"),
        lambda _: efficientnet.EfficientNetLite0Extractor(efficientnet.NAME, ["1280", "logits"]),
        Path(efficientnet.weights_path()),
        CLASSIFIERS,
        classes=1000,
    ),
    "dinov2-vit-l-14": Architecture(
        "dinov2-vit-l-14",
        1024,
        224,
        ("pillow", "antialiased", "tensorflow"),
        load_dinov2,
        DINOV2_WEIGHTS,
        SELF_SUPERVISED,
    ),
    "clip-vit-b-32": Architecture(
        "clip-vit-b-32",
        512,
        224,
        ("pillow", "antialiased", "bicubic", "tensorflow"),
        lambda file: ClipImageEncoder("clip-vit-b-32", file),
        published_clip("clip-vit-b-32", "HAMGAN_CLIP_B32_WEIGHTS"),
        CAPTIONED,
        cpu_chunk=16,
    ),
    "clip-vit-l-14-336": Architecture(
        "clip-vit-l-14-336px",
        768,
        336,
        ("bicubic", "pillow", "tensorflow"),
        lambda file: ClipImageEncoder("clip-vit-l-14-336px", file),
        published_clip("clip-vit-l-14-336px", "HAMGAN_CLIP_L336_WEIGHTS"),
        CAPTIONED,
    ),
}
"""Extractors by their names in `--features`."""
OWN_NAMES = {origin: name for name, origin in OWN_EXTRACTORS.items()}
"""(extractor, metric) -> the name under which papers quote that number."""


@dataclass
class FeatureExtractor:
    """Run a frozen network with known weights; call it with uint8 images [B, 3, H, W] for features and logits."""

    network: Network
    name: str
    weights: str
    """sha256 of the weights file."""
    resizer: str
    """Name in `RESIZING`."""
    device: torch.device
    compiled: bool = False
    tf32: bool = False
    """Compute in TF32, on NVIDIA GPUs: features move by 1e-3, so numbers and references say so."""

    def __post_init__(self) -> None:
        self.network.to(self.device).eval()
        self.architecture = ARCHITECTURES[self.name]
        self.dimension, self.classes = self.architecture.dimension, self.architecture.classes
        self.threads = core_count() if self.device.type == "cpu" else 1
        run = self.network.forward_resized
        self.run = torch.compile(run, dynamic=False) if self.compiled else run

    @property
    def precision(self) -> str:
        """Return the arithmetic of the features: fp32 or tf32."""
        return "tf32" if self.tf32 and self.device.type == "cuda" else "fp32"

    def key(self, name: str) -> str:
        """Return the key of a metric in a row: ``fid`` for the usual one, else with its deviations appended.

        These are the extractor, the resizer, the hash of other weights and TF32, each only if it is not the usual one.
        """
        return self._key_in_fp32(name) + ("" if self.precision == "fp32" else f"_{self.precision}")

    def _key_in_fp32(self, name: str) -> str:
        weights = self.architecture.weights
        official = isinstance(weights, Path) or self.weights.startswith(weights.sha256)
        usual = self.resizer == self.architecture.resizers[0]
        base, spread = next(((name.removesuffix(end), end) for end in SPREADS if name.endswith(end)), (name, ""))
        digest, resizer = "" if official else f"_{self.weights[:8]}", "" if usual else f"_{self.resizer}"
        if own := OWN_NAMES.get((self.name, base)):
            return own + spread + resizer + digest
        is_plain = self.name == "inception" and official and name not in OWN_NAMES.values()
        return name + ("" if is_plain else f"_{self.name.replace('-', '_')}") + resizer + digest

    def describe(self) -> dict[str, str]:
        """Return everything that must be equal in two sets of features to compare them."""
        return {
            "extractor": self.architecture.label,
            "extractor_weights": self.weights[:16],
            "resizer": RESIZING[self.resizer][1].format(self.architecture.size),
            "precision": self.precision,
        }

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, D] and logits [B, C], float32 on the extractor's device, of uint8 images [B, 3, H, W]."""
        images = images.to(self.device, non_blocking=True)
        with using_tf32(self.tf32):
            return self._extract(images)

    def _extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.device.type != "cpu":
            return self._infer(images)
        found = map_on_cores(self.threads, self._infer, images.split(self.architecture.cpu_chunk))
        return torch.cat([features for features, _ in found]), torch.cat([logits for _, logits in found])

    @torch.inference_mode()
    def _infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            features, *logits = self.run(RESIZING[self.resizer][0](images, self.architecture.size))
        return features, logits[0] if logits else features.new_empty(len(features), 0)


SPREADS = ("_seeds_std", "_standard_error", "_std", "_residual", "_real")
"""Endings of the keys of numbers that accompany another number."""


def load_extractor(
    name: str = "inception",
    *,
    weights: str | Path | None = None,
    weights_sha256: str | None = None,
    resizer: str = "native",
    device: str | torch.device | None = None,
    compiled: bool = False,
    tf32: bool = False,
) -> FeatureExtractor:
    """Load an extractor by name (see `ARCHITECTURES`) onto ``device`` (default: a GPU, else the CPU).

    ``resizer`` ``native`` is the usual one. Raises ConfigError for an unknown name, for a resizer that is not allowed
    for this extractor, for a device that cannot be used, and for missing or wrong weights. With several processes the
    first one downloads.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"unknown features {name!r}{did_you_mean(name, FEATURES)}; there are {', '.join(FEATURES)}")
    architecture = ARCHITECTURES[name]
    if resizer != "native" and resizer not in architecture.resizers:
        allowed = ", ".join(architecture.resizers)
        raise ConfigError(f"features {name} are not resized by {resizer!r}; allowed: native, {allowed}")
    device, published = find_device(device), architecture.weights
    if isinstance(published, Path):
        file = published
    else:
        file = find_weights_on_every_process(published, weights, weights_sha256)
    try:
        network = architecture.load(file)
    except Exception as error:
        raise ConfigError(f"{file} does not hold the weights of {architecture.label}: {one_line(error)}") from error
    chosen = architecture.resizers[0] if resizer == "native" else resizer
    return FeatureExtractor(network, name, sha256(file), chosen, device, compiled, tf32)
