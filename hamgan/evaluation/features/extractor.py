"""Extract features and logits from uint8 images, on any device, as fast as the extractor goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.distributed.cores import map_on_cores
from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.efficientnet import NAME as EFFICIENTNET
from hamgan.evaluation.features.efficientnet import EfficientNetLite0Extractor, weights_path
from hamgan.evaluation.features.inception import FoldedInception, inception_weights, load_inception
from hamgan.evaluation.protocol import WEIGHTS_SHA256, Resizer
from hamgan.files import sha256
from hamgan.sampling import default_device

EXTRACTORS = ("inception", EFFICIENTNET)
SIZES = {"inception": (2048, 1008), EFFICIENTNET: (1280, 1000)}
"""Lengths of a feature and of the logits."""
RESIZERS = {
    ("inception", "native"): "bilinear without antialiasing (TensorFlow 1) to 299",
    (EFFICIENTNET, "native"): "bilinear, antialiased to 224",
}
# Images per forward on a CPU core, so that the activations fit into its cache: at 8 and more, EfficientNet takes up to
# twice as long per image; Inception is level from 4 to 16.
CPU_CHUNK = {"inception": 8, EFFICIENTNET: 4}


@dataclass
class FeatureExtractor:
    """Run a frozen network of known origin; call it with uint8 images [B, 3, H, W] for features and logits."""

    network: FoldedInception | EfficientNetLite0Extractor
    name: str
    weights: str
    """sha256 of the weights file."""
    resizer: Resizer
    device: torch.device
    compiled: bool = False

    def __post_init__(self) -> None:
        self.network.to(self.device).eval()
        self.dimension, self.classes = SIZES[self.name]
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.run = torch.compile(self._forward, dynamic=False) if self.compiled else self._forward

    @property
    def suffix(self) -> str:
        """Return what is added to the keys of numbers that are not the plain FID, IS, ... that others quote."""
        if self.name != "inception":
            return f"_{self.name.replace('-', '_')}"
        return "" if self.weights.startswith(WEIGHTS_SHA256) else f"_inception_{self.weights[:8]}"

    def describe(self) -> dict[str, str]:
        """Return what must be equal in two sets of features before they may be compared."""
        size = self.network.INPUT_IMAGE_SIZE
        return {
            "extractor": "inception-v3-compat" if self.name == "inception" else self.name,
            "extractor_weights": self.weights[:16],
            "resizer": RESIZERS.get((self.name, self.resizer)) or f"bicubic, antialiased (clean-fid) to {size}",
            # Always float32; reference files of earlier versions may have another one, which cannot be compared.
            "precision": "fp32",
        }

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, D] and logits [B, C], float32 on the extractor's device, of uint8 images [B, 3, H, W]."""
        images = images.to(self.device, non_blocking=True)
        if self.device.type != "cpu":
            with _without_tf32():
                return self._infer(images)
        found = map_on_cores(self.threads, self._infer, images.split(CPU_CHUNK[self.name]))
        return torch.cat([features for features, _ in found]), torch.cat([logits for _, logits in found])

    @torch.inference_mode()
    def _infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            features, logits = self.run(images)
        return features, logits

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...]
        if self.resizer == "native":
            found = self.network(images)
        else:
            found = self.network.forward_resized(clean_resize(images, self.network.INPUT_IMAGE_SIZE))
        return found


def clean_resize(images: Tensor, size: int) -> Tensor:
    """Resize as clean-fid (Parmar et al. 2022): Pillow's antialiased bicubic on float pixels, not rounded afterwards.

    Shapes: uint8 [B, 3, H, W] -> float32 [B, 3, size, size], 0 to 255.
    """
    resized = F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Keep cuDNN from rounding float32 convolutions to TF32, as it does by default: features would move by 1e-3."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
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
    device: str | torch.device | None = None,
    compiled: bool = False,
) -> FeatureExtractor:
    """Load an extractor by name, `inception` or `efficientnet-lite0`, onto ``device`` (default: a GPU, else the CPU).

    Raises ConfigError for an unknown name and for missing or wrong weights. Of several processes the first downloads.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"unknown features {name!r}; there are {' and '.join(EXTRACTORS)}")
    network: FoldedInception | EfficientNetLite0Extractor
    if name == EFFICIENTNET:
        file = Path(weights_path())
        network = EfficientNetLite0Extractor(EFFICIENTNET, ["1280", "logits"])
    else:
        file = _weights_on_every_process(weights, weights_sha256)
        network = load_inception(file)
    return FeatureExtractor(network, name, sha256(file), resizer, torch.device(device or default_device()), compiled)


def _weights_on_every_process(weights: str | Path | None, weights_sha256: str) -> Path:
    """Find or download the Inception weights on the main process first; all processes raise where it finds none."""
    processes, problem = Processes.current(), ""
    if processes.is_main:
        try:
            inception_weights(weights, weights_sha256)
        except ConfigError as error:
            problem = str(error)
    if processes.any(bool(problem)):
        raise ConfigError(problem or "the first process found no Inception weights; its message says why")
    # A node without a shared home finds nothing there, and downloads for itself.
    return inception_weights(weights, weights_sha256)
