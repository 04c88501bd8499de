"""Share small generators in the form that trains."""

from pathlib import Path

import torch
from support.small_runs import small_config
from torch import Tensor

from hamgan.networks import Generator, build_networks

VARIANTS = {
    "hierarchical": [],
    "per class": ["generator.conditioning=per_class", "generator.hierarchical=false"],
    "context behind the last block": ["generator.context_resolutions=[32]"],
    "attention": ["generator.context=attention"],
    "without context": ["generator.context=none"],
    "hamburger v2": ["generator.hamburger.version=v2"],
    "hamburger v2+": ["generator.hamburger.version=v2+", "generator.hamburger.decomposition=vq"],
    "clamped": ["generator.spectral_norm.clamp=true"],
    "without spectral norm": ["generator.spectral_norm.enabled=false"],
}


def trained_form(folder: Path, *overrides: str) -> Generator:
    """Build a generator whose context is open and whose statistics and singular vectors are those of real forwards."""
    network, _ = build_networks(small_config(folder, "data.num_classes=5", *overrides))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.7)
            if name.endswith(("gamma", "beta")):  # all classes start alike
                parameter.normal_(1.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
        for seed in range(3):
            torch.manual_seed(seed)
            network(torch.randn(32, 16), torch.randint(5, (32,)))
    return network.eval()


def latents(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 16, generator=generator), torch.randint(5, (count,), generator=generator)
