"""Load each network from a file of random weights twice: as this package runs it, and as the one that people quote.

Where a package cannot load random weights or would download some, its parts are used: its resize, its network. All are
development dependencies. Every function returned takes uint8 images [B, 3, H, W] to features [B, D].
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from benchmarks.random_weights import CLIP_SHAPES, count_blocks
from hamgan.evaluation import FeatureExtractor, load_extractor
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.features.clip import ClipImageEncoder
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.files import sha256

Extract = Callable[[Tensor], Tensor]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


def weights_file(name: str, folder: Path) -> Path:
    """Return the file for an extractor's weights; both of Inception have one."""
    return folder / {"inception": "inception.pth", "dinov2": "dinov2.pth"}.get(name.split("-")[0], f"{name}.pt")


def load_ours(name: str, resizer: str, folder: Path, device: torch.device = CPU) -> FeatureExtractor:
    """Load our extractor; its transformer has as many blocks as the file."""
    file = weights_file(name, folder)
    if name.startswith("inception"):
        return load_extractor(name, weights=file, weights_sha256=sha256(file), resizer=resizer, device=device)
    network: dinov2.VisionTransformer | ClipImageEncoder
    if name.startswith("dinov2"):
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        with torch.device("meta"):
            network = dinov2.VisionTransformer(dinov2.WIDTH, count_blocks(state), dinov2.HEADS)
        network.load_state_dict(state, assign=True)
    else:
        network = ClipImageEncoder(ARCHITECTURES[name].label, file)
    usual = ARCHITECTURES[name].resizers[0]
    return FeatureExtractor(network, name, sha256(file), resizer.replace("native", usual), device)


def load_theirs(name: str, resizer: str, folder: Path, device: torch.device = CPU) -> tuple[str, Extract]:
    """Load the network and the resize of the packages that people quote; return their names and versions with it."""
    known: dict[tuple[str, str], tuple[Callable[[Path, torch.device], Extract], str]] = {
        ("inception-spatial", "native"): (_torch_fidelity, "torch-fidelity {torch-fidelity}'s network, ADM's layer"),
        ("inception", "clean"): (_clean_fid, "clean-fid {clean-fid}, pytorch-fid {pytorch-fid}'s network"),
        ("dinov2-vit-l-14", "native"): (_timm, "timm {timm}'s network, dgm-eval's PIL bicubic"),
        ("dinov2-vit-l-14", "antialiased"): (_timm_antialiased, "timm {timm}'s network, EDM2's torch bicubic"),
        ("clip-vit-b-32", "native"): (
            partial(_open_clip, "clip-vit-b-32", lambda images: pillow(images, 224)),
            "open_clip {open_clip_torch}'s network, clean-fid {clean-fid}'s resize",
        ),
        ("clip-vit-l-14-336", "native"): (
            partial(_open_clip, "clip-vit-l-14-336", _cmmd_pixels),
            "open_clip {open_clip_torch}'s network, google-research's formula",
        ),
    }
    load, words = known[name, resizer]
    return with_versions(words), load(weights_file(name, folder), device)


def with_versions(text: str) -> str:
    """Fill the versions of packages into a text such as ``timm {timm}``."""
    names = ("timm", "open_clip_torch", "clean-fid", "torch-fidelity", "prdc", "numpy", "pytorch-fid")
    return text.format(**{name: version(name) for name in names})


def pytorch_fid_network(weights: Path, **options: bool) -> nn.Module:
    """Load pytorch-fid's Inception, whose constructor would download: the state comes from the file instead."""
    from pytorch_fid import inception  # type: ignore[import-untyped]  # ships none

    state = torch.load(weights, map_location="cpu", weights_only=True)
    download, inception.load_state_dict_from_url = inception.load_state_dict_from_url, lambda *_args, **_options: state
    try:
        network: nn.Module = inception.InceptionV3([3], **options).eval()
    finally:
        inception.load_state_dict_from_url = download
    return network


def pillow(images: Tensor, size: int) -> Tensor:
    """Resize by Pillow's bicubic filter as torchvision calls it."""
    pictures = [Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()]
    bicubic = transforms.InterpolationMode.BICUBIC
    return torch.stack([transforms.pil_to_tensor(transforms.resize(one, [size, size], bicubic)) for one in pictures])


def _normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    normalised: Tensor = transforms.normalize(pixels.float() / 255, list(mean), list(std))
    return normalised


def _torch_fidelity(weights: Path, device: torch.device) -> Extract:
    """Return torch-fidelity's network up to the features that follow ADM's layer most closely."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["768"], feature_extractor_weights_path=str(weights))
    network.eval().to(device)
    spatial: list[Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _inputs, output: spatial.append(output))

    def extract(images: Tensor) -> Tensor:
        network(images.to(device))
        # ADM's evaluator takes 7 channels of this layer, channels last.
        return spatial.pop()[:, :7].permute(0, 2, 3, 1).flatten(1)

    return extract


def _clean_fid(weights: Path, device: torch.device) -> Extract:
    from cleanfid.resize import build_resizer  # type: ignore[import-untyped]  # ships none

    network = pytorch_fid_network(weights, resize_input=False, normalize_input=False).to(device)
    resize = build_resizer("clean")

    def extract(images: Tensor) -> Tensor:
        resized = [torch.from_numpy(resize(image)) for image in images.permute(0, 2, 3, 1).numpy()]
        pixels = torch.stack(resized).permute(0, 3, 1, 2).contiguous().to(device)  # as its data set gives them
        features: Tensor = network((pixels - 128) / 128)[0]
        return features.flatten(1)

    return extract


def _timm(
    weights: Path, device: torch.device, resize: Callable[[Tensor], Tensor] = lambda images: pillow(images, 224)
) -> Extract:
    """Return timm's network; the position embeddings for 224 pixels are resized by Meta's rule before."""
    from timm.models.vision_transformer import VisionTransformer

    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=dinov2.WIDTH, depth=count_blocks(state), num_heads=dinov2.HEADS,
        init_values=1.0, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    ours = dinov2.VisionTransformer(dinov2.WIDTH, 0, dinov2.HEADS)
    ours.pos_embed = nn.Parameter(state["pos_embed"], requires_grad=False)
    state["pos_embed"] = ours.position_embeddings(16, 16)
    network.load_state_dict({name: value for name, value in state.items() if name != "mask_token"}, assign=True)
    network.eval().to(device)

    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(_normalise(resize(images).to(device), IMAGENET_MEAN, IMAGENET_STD))
        return features

    return extract


def _timm_antialiased(weights: Path, device: torch.device) -> Extract:
    return _timm(
        weights, device,
        lambda images: nn.functional.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True),
    )  # fmt: skip


def _cmmd_pixels(images: Tensor) -> Tensor:
    return nn.functional.interpolate(images.float(), size=(336, 336), mode="bicubic")


def _open_clip(name: str, resize: Callable[[Tensor], Tensor], weights: Path, device: torch.device) -> Extract:
    from open_clip.transformer import QuickGELU, VisionTransformer

    patch, grid, dimension = CLIP_SHAPES[name]
    state = torch.jit.load(weights, map_location="cpu").visual.state_dict()
    width = len(state["class_embedding"])
    with torch.device("meta"):
        network = VisionTransformer(
            patch * grid, patch, width, count_blocks(state), width // 64, mlp_ratio=4.0, output_dim=dimension,
            act_layer=QuickGELU,
        )  # fmt: skip
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    network.eval().to(device)

    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(_normalise(resize(images).to(device), CLIP_MEAN, CLIP_STD))
        return features

    return extract
