"""Write random weights in the formats of the published files, for a machine that cannot download these."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import VisionTransformer as ClipVisionTransformer
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from hamgan.evaluation.features import dinov2

CLIP_SHAPES = {"clip-vit-b-32": (32, 7, 512), "clip-vit-l-14-336": (14, 24, 768)}
"""Pixels a side of a patch, patches a side of an image, length of the embedding."""
CLIP_SIZES = {"clip-vit-b-32": (768, 12), "clip-vit-l-14-336": (1024, 24)}
"""Width and number of blocks of the published networks."""


def count_blocks(names: Iterable[str]) -> int:
    """Count the blocks of a transformer by the names of its weights."""
    return len({found[1] for name in names if (found := re.search(r"blocks\.(\d+)\.", name))})


class _RandomInception(FeatureExtractorInceptionV3):  # type: ignore[misc, unused-ignore]  # untyped
    """Keep the weights of the constructor."""

    def load_state_dict(self, *_arguments: object, **_options: object) -> None:
        """Load nothing."""


def save_random_inception(file: Path) -> Path:
    """Save random weights in the format of torch-fidelity's Inception file, for a machine that cannot download it.

    Batch norms are not neutral, so that folding them is put to the test; times do not depend on the values.
    """
    empty = file.with_name("empty.pth")
    torch.save({}, empty)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _RandomInception("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(empty))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low, high in ((module.running_mean, -0.1, 0.1), (module.running_var, 0.05, 0.2)):
                    assert value is not None
                    nn.init.uniform_(value, low, high)
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, 0, 0.1)
    torch.save(network.state_dict(), file)
    empty.unlink()
    return file


LAST_LAYERS = re.compile(r"Mixed_7c\.(branch1x1|branch3x3_2[ab]|branch3x3dbl_3[ab]|branch_pool)\.bn\.(weight|bias)")


def scale_features(file: Path, factor: float) -> None:
    """Scale the features of a file of `save_random_inception`, which are some hundred times the published file's."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    torch.save({name: value * factor if LAST_LAYERS.fullmatch(name) else value for name, value in state.items()}, file)


def random_dinov2(depth: int = 1) -> dinov2.VisionTransformer:
    """Return DINOv2's ViT-L/14 of random weights, with few of its 24 equal blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = dinov2.VisionTransformer(dinov2.WIDTH, depth, dinov2.HEADS)
        for name, parameter in network.named_parameters():
            is_gain = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
            nn.init.normal_(parameter, mean=float(is_gain), std=0.1 if is_gain else 0.05)
    return network.requires_grad_(False)


class _ClipFile(nn.Module):
    """Hold tensors by the names of a CLIP file."""

    def __init__(self, patch: int, grid: int, dimension: int, width: int, depth: int) -> None:
        super().__init__()
        self.visual = ClipVisionTransformer(patch * grid, patch, width, depth, width // 64, dimension)
        self.text_projection = nn.Parameter(torch.zeros(1, dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Return what it is given: TorchScript wants a method."""
        return x


def save_random_clip(file: Path, name: str, width: int = 64, depth: int = 1) -> Path:
    """Save a vision transformer of random weights in CLIP's format: a TorchScript archive in half precision."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and the published files' format
        torch.manual_seed(2)
        torch.jit.script(_ClipFile(*CLIP_SHAPES[name], width, depth).half()).save(str(file))
    return file
