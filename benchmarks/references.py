"""Compute, by the packages that people quote, the numbers that `benchmarks.equality` compares with.

Where a package cannot load random weights or would download some, its parts are used: its resize, its network (see
`benchmarks.networks`), its metric. All are development dependencies.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import load_theirs, pytorch_fid_network, with_versions
from hamgan.evaluation.inputs.images import FolderImages

BATCH = 16
Sides = tuple[Tensor, Tensor]
"""Features [N, D] of samples and reference."""


class Expected(NamedTuple):
    """Hold a number: its title, the package that gave it, and its value."""

    title: str
    package: str
    value: float


def expected_numbers(folder: Path, kid: Mapping[str, int]) -> dict[str, Expected]:
    """Return the packages' numbers by the names of `benchmarks.equality`."""
    found = _by_torch_fidelity(folder, kid)
    found["inception clean fid"] = _by_clean_fid(folder)
    for key, title, name, resizer, measure in (
        ("dinov2-vit-l-14 fid", "FD-DINOv2", "dinov2-vit-l-14", "native", _fid),
        ("dinov2-vit-l-14 antialiased fid", "FD-DINOv2 antialiased", "dinov2-vit-l-14", "antialiased", _fid),
        ("clip-vit-b-32 fid", "CLIP-FID", "clip-vit-b-32", "native", _fid),
        ("clip-vit-l-14-336 cmmd", "CMMD", "clip-vit-l-14-336", "native", _cmmd),
    ):
        package, extract = load_theirs(name, resizer, folder)
        found[key] = Expected(title, package, measure(*_both(folder, extract)))
    return found


@torch.inference_mode()
def _both(folder: Path, extract: Callable[[Tensor], Tensor]) -> Sides:
    """Extract the features of both sides from uint8 images [B, 3, H, W]."""

    def side(name: str) -> Tensor:
        images = FolderImages(folder / name)
        starts = range(0, len(images), BATCH)
        return torch.cat([extract(images.read(range(first, min(first + BATCH, len(images))))) for first in starts])

    return side("val"), side("train")


def _fid(samples: Tensor, reference: Tensor) -> float:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(features.double()) for features in (samples, reference)]
    return float(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def _by_torch_fidelity(folder: Path, kid: Mapping[str, int]) -> dict[str, Expected]:
    """Compute all numbers of Inception from one pass of torch-fidelity's own network."""
    from prdc import compute_prdc
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    names, file = ["2048", "logits_unbiased"], str(folder / "inception.pth")
    network = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=file)
    spatial: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _inputs, output: spatial.append(output))

    def extract(images: Tensor) -> Tensor:
        # ADM's evaluator takes 7 channels of this layer, channels last.
        features, logits = network.eval()(images)
        return torch.cat([features, logits, spatial.pop()[:, :7].permute(0, 2, 3, 1).flatten(1)], 1)

    samples, reference = (side.split([2048, 1008, 2023], 1) for side in _both(folder, extract))
    pair = samples[0], reference[0]
    package = with_versions("torch-fidelity {torch-fidelity}")
    score = isc_features_to_metric(samples[1], splits=10)["inception_score_mean"]
    numbers = {"fid": ("FID", _fid(*pair)), "inception_score": ("Inception Score", score)}
    for kernel, name, key in (("poly", "polynomial", "kid"), ("rbf", "rbf", "kid rbf kid")):
        value = kid_features_to_metric(*pair, **kid, kid_kernel=kernel, verbose=False)
        numbers[key] = (f"KID, {name} kernel", value["kernel_inception_distance_mean"])
    neighbours = prc_features_to_metric(*pair, verbose=False)
    numbers |= {name: (f"{name.capitalize()}, k = 3", neighbours[name]) for name in ("precision", "recall")}
    found = {f"inception {key}": Expected(title, package, float(value)) for key, (title, value) in numbers.items()}
    counted = compute_prdc(reference[0].numpy(), samples[0].numpy(), nearest_k=5)
    for name in ("density", "coverage"):
        title = f"{name.capitalize()}, k = 5"
        found[f"inception {name}"] = Expected(title, with_versions("prdc {prdc}"), float(counted[name]))
    found["inception mind"] = Expected("MIND", "its formula in float64 (no release has it)", _mind(*pair))
    how = with_versions("torch-fidelity {torch-fidelity}'s network, ADM's layer")
    found["inception-spatial fid"] = Expected("sFID", how, _fid(samples[2], reference[2]))
    return found


def _mind(samples: Tensor, reference: Tensor) -> float:
    """Return 3 D times the mean squared distance of sorted projections, with torch-fidelity 0.5's directions."""
    generator = torch.Generator().manual_seed(2020)
    directions = torch.randn(1000, samples.shape[1], generator=generator).double()
    directions /= directions.norm(dim=1, keepdim=True)
    x, y = ((side.double() @ directions.mT).sort(dim=0).values for side in (samples, reference))
    return float(3 * samples.shape[1] * (x - y).square().mean())


def _by_clean_fid(folder: Path) -> Expected:
    """Run clean-fid on the folders, with pytorch-fid's network in place of the one that it would download."""
    from cleanfid import fid  # type: ignore[import-untyped]  # ships none

    network = pytorch_fid_network(folder / "inception.pth", resize_input=False, normalize_input=False)

    @torch.inference_mode()
    def extract(pixels: Tensor) -> Tensor:
        features: Tensor = network((pixels - 128) / 128)[0]
        return features.flatten(1)

    settings: dict[str, Any] = {"mode": "clean", "num_workers": 0, "device": "cpu", "verbose": False}
    features = [fid.get_folder_features(str(folder / side), extract, **settings) for side in ("val", "train")]
    sides = [torch.from_numpy(np.asarray(rows)) for rows in features]
    package = with_versions("clean-fid {clean-fid}, pytorch-fid {pytorch-fid}'s network")
    return Expected("FID, clean resize", package, _fid(*sides))


def _cmmd(samples: Tensor, reference: Tensor) -> float:
    x, y = (nn.functional.normalize(side.double(), dim=1) for side in (samples, reference))

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((-torch.cdist(a, b).square() / (2 * 10.0**2)).exp().mean())

    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
