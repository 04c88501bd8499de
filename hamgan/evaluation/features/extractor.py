"""From uint8 images to features and logits, on any device, as fast as the extractor goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.distributed.cores import map_on_cores
from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.efficientnet import NAME as EFFICIENTNET
from hamgan.evaluation.features.efficientnet import EfficientNetLite0Extractor
from hamgan.evaluation.features.efficientnet import weights_path as efficientnet_weights
from hamgan.evaluation.features.inception import (
    WEIGHTS_SHA256,
    FoldedInception,
    file_sha256,
    inception_weights,
    load_inception,
)

Features = Literal["inception", "efficientnet-lite0"]
Resizer = Literal["native", "clean"]
Precision = Literal["fp32", "tf32", "bf16"]

EXTRACTORS = ("inception", EFFICIENTNET)
# Images per forward on a CPU core, so that the activations fit into its cache: at 8 and more, EfficientNet takes up to
# twice as long per image; Inception is level from 4 to 16.
CPU_CHUNK = {"inception": 8, EFFICIENTNET: 4}


@dataclass
class FeatureExtractor:
    """A frozen network with its provenance; call it with uint8 images [B, 3, H, W] for features and logits."""

    network: FoldedInception | EfficientNetLite0Extractor
    name: str
    weights: str
    """sha256 of the weights file."""
    resizer: Resizer
    precision: Precision
    device: torch.device
    compiled: bool = False

    def __post_init__(self) -> None:
        self.network.to(self.device).eval()
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.run = torch.compile(self._forward, dynamic=False) if self.compiled else self._forward

    @property
    def dimension(self) -> int:
        """Length of a feature."""
        return 2048 if self.name == "inception" else 1280

    @property
    def classes(self) -> int:
        """Length of the logits."""
        return 1008 if self.name == "inception" else 1000

    @property
    def suffix(self) -> str:
        """What is added to the keys of numbers that are not the plain FID, IS, ... that others quote."""
        if self.name != "inception":
            return f"_{self.name.replace('-', '_')}"
        return "" if self.weights.startswith(WEIGHTS_SHA256) else f"_inception_{self.weights[:8]}"

    @property
    def resizer_name(self) -> str:
        """How images reach the network's input size, in words."""
        if self.resizer == "clean":
            return f"bicubic, antialiased (clean-fid) to {self.network.INPUT_IMAGE_SIZE}"
        if self.name == "inception":
            return "bilinear without antialiasing (TensorFlow 1) to 299"
        return "bilinear, antialiased to 224"

    def describe(self) -> dict[str, str]:
        """What must be equal in two sets of features before they may be compared."""
        full_name = "inception-v3-compat" if self.name == "inception" else self.name
        return {
            "extractor": full_name,
            "extractor_weights": self.weights[:16],
            "resizer": self.resizer_name,
            "precision": self.precision,
        }

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] and logits [B, C], float32 on the extractor's device, of uint8 images [B, 3, H, W]."""
        images = images.to(self.device, non_blocking=True)
        if self.device.type != "cpu":
            return self._infer(images)
        chunks = images.split(CPU_CHUNK[self.name])
        found = map_on_cores(self.threads, self._infer, chunks)
        return torch.cat([features for features, _ in found]), torch.cat([logits for _, logits in found])

    @torch.inference_mode()
    def _infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with (
            _tf32(self.precision == "tf32"),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            features, logits = self.run(images)
        return features.float(), logits.float()

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.resizer == "native":
            return self.network(images)
        return self.network.forward_resized(clean_resize(images, self.network.INPUT_IMAGE_SIZE))


def clean_resize(images: Tensor, size: int) -> Tensor:
    """clean-fid's resize (Parmar et al. 2022): Pillow's antialiased bicubic on float pixels, not rounded afterwards.

    Shapes: uint8 [B, 3, H, W] -> float32 [B, 3, size, size], 0 to 255.
    """
    resized = F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    # cuDNN rounds fp32 convolutions to TF32 unless it is told not to; features would move by 1e-3.
    if not torch.cuda.is_available():
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def load_extractor(
    name: str = "inception",
    *,
    weights: str | Path | None = None,
    weights_sha256: str = WEIGHTS_SHA256,
    resizer: Resizer = "native",
    precision: Precision = "fp32",
    device: str | torch.device | None = None,
    compiled: bool = False,
) -> FeatureExtractor:
    """An extractor by name, `inception` or `efficientnet-lite0`, on `device` (default: the GPU where there is one).

    Raises ConfigError for an unknown name and for missing or wrong weights. Of several processes the first downloads.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"unknown features {name!r}; there are {' and '.join(EXTRACTORS)}")
    where = torch.device(device) if device is not None else default_device()
    if name == EFFICIENTNET:
        file = Path(efficientnet_weights())
        network = EfficientNetLite0Extractor(EFFICIENTNET, ["1280", "logits"])
    else:
        file = _weights_on_every_process(weights, weights_sha256)
        network = load_inception(file)
    return FeatureExtractor(network, name, file_sha256(file), resizer, precision, where, compiled)


def _weights_on_every_process(weights: str | Path | None, sha256: str) -> Path:
    processes = Processes.current()
    if processes.size == 1:
        return inception_weights(weights, sha256)
    problem, file = "", None
    if processes.is_main:
        try:
            file = inception_weights(weights, sha256)
        except ConfigError as error:
            problem = str(error)
    if processes.any(bool(problem)):
        raise ConfigError(problem or "the first process found no Inception weights; its message says why")
    # A node without a shared home looks again, and downloads for itself.
    return file or inception_weights(weights, sha256)


def default_device() -> torch.device:
    """The current GPU, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
