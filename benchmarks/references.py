"""Compute, by the packages that people quote, the numbers that `benchmarks.equality` compares with.

Where a package cannot load random weights or would download some, its parts are used: its resize, its network, its
metric. All are development dependencies.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from benchmarks.random_weights import CLIP_SHAPES, random_dinov2
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.inputs.images import FolderImages

BATCH = 16
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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
    for resizer in ("", " antialiased"):
        sides = _both(folder, _timm_dinov2(folder, "PIL" if not resizer else "torch"))
        how = "timm {timm}'s network, " + ("dgm-eval's PIL bicubic" if not resizer else "EDM2's torch bicubic")
        found[f"dinov2-vit-l-14{resizer} fid"] = Expected(f"FD-DINOv2{resizer}", _named(how), _fid(*sides))
    sides = _both(folder, _open_clip("clip-vit-b-32", folder, _clean_fid_pixels))
    how = _named("open_clip {open_clip_torch}'s network, clean-fid {clean-fid}'s resize")
    found["clip-vit-b-32 fid"] = Expected("CLIP-FID", how, _fid(*sides))
    sides = _both(folder, _open_clip("clip-vit-l-14-336", folder, _cmmd_pixels))
    how = _named("open_clip {open_clip_torch}'s network, google-research's formula")
    found["clip-vit-l-14-336 cmmd"] = Expected("CMMD", how, _cmmd(*sides))
    return found


def _named(text: str) -> str:
    names = ("timm", "open_clip_torch", "clean-fid", "torch-fidelity", "prdc", "numpy", "pytorch-fid")
    return text.format(**{name: version(name) for name in names})


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
    package = _named("torch-fidelity {torch-fidelity}")
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
        found[f"inception {name}"] = Expected(title, _named("prdc {prdc}"), float(counted[name]))
    found["inception mind"] = Expected("MIND", "its formula in float64 (no release has it)", _mind(*pair))
    how = _named("torch-fidelity {torch-fidelity}'s network, ADM's layer")
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
    from pytorch_fid import inception  # type: ignore[import-untyped]  # ships none

    state = torch.load(folder / "inception.pth", map_location="cpu", weights_only=True)
    download, inception.load_state_dict_from_url = inception.load_state_dict_from_url, lambda *_args, **_options: state
    try:
        network: nn.Module = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    finally:
        inception.load_state_dict_from_url = download

    @torch.inference_mode()
    def extract(pixels: Tensor) -> Tensor:
        features: Tensor = network((pixels - 128) / 128)[0]
        return features.flatten(1)

    settings: dict[str, Any] = {"mode": "clean", "num_workers": 0, "device": "cpu", "verbose": False}
    features = [fid.get_folder_features(str(folder / side), extract, **settings) for side in ("val", "train")]
    sides = [torch.from_numpy(np.asarray(rows)) for rows in features]
    return Expected(
        "FID, clean resize", _named("clean-fid {clean-fid}, pytorch-fid {pytorch-fid}'s network"), _fid(*sides)
    )


def _normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    normalised: Tensor = transforms.normalize(pixels.float() / 255, list(mean), list(std))
    return normalised


def _pillow(images: Tensor, size: int) -> Tensor:
    pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    bicubic = transforms.InterpolationMode.BICUBIC
    return torch.stack([transforms.pil_to_tensor(transforms.resize(one, [size, size], bicubic)) for one in pictures])


def _clean_fid_pixels(images: Tensor) -> Tensor:
    return _pillow(images, 224)


def _cmmd_pixels(images: Tensor) -> Tensor:
    return nn.functional.interpolate(images.float(), size=(336, 336), mode="bicubic")


def _timm_dinov2(folder: Path, resize: str) -> Callable[[Tensor], Tensor]:
    """Return timm's network; the position embeddings for 224 pixels are resized by Meta's rule before."""
    from timm.models.vision_transformer import VisionTransformer

    ours = random_dinov2()
    state = torch.load(folder / "dinov2.pth", weights_only=True)
    network = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=dinov2.WIDTH, depth=len(ours.blocks), num_heads=dinov2.HEADS,
        init_values=1.0, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    state["pos_embed"] = ours.position_embeddings(16, 16)
    network.load_state_dict({name: value for name, value in state.items() if name != "mask_token"})
    network.eval()

    def extract(images: Tensor) -> Tensor:
        if resize == "PIL":
            pixels = _pillow(images, 224)
        else:
            pixels = nn.functional.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True)
        features: Tensor = network(_normalise(pixels, IMAGENET_MEAN, IMAGENET_STD))
        return features

    return extract


def _open_clip(name: str, folder: Path, resize: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    from open_clip.transformer import QuickGELU, VisionTransformer

    patch, grid, dimension = CLIP_SHAPES[name]
    state = torch.jit.load(folder / f"{name}.pt", map_location="cpu").visual.state_dict()
    width, blocks = len(state["class_embedding"]), [key for key in state if key.endswith("attn.in_proj_weight")]
    network = VisionTransformer(
        patch * grid, patch, width, len(blocks), width // 64, mlp_ratio=4.0, output_dim=dimension, act_layer=QuickGELU
    )
    network.load_state_dict({key: value.float() for key, value in state.items()})
    network.eval()

    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(_normalise(resize(images), CLIP_MEAN, CLIP_STD))
        return features

    return extract


def _cmmd(samples: Tensor, reference: Tensor) -> float:
    x, y = (nn.functional.normalize(side.double(), dim=1) for side in (samples, reference))

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((-torch.cdist(a, b).square() / (2 * 10.0**2)).exp().mean())

    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
