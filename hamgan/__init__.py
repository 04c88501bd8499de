"""HamGAN: class-conditional GANs whose global-context block is a matrix decomposition.

Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021 (arXiv 2109.04553).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from hamgan.config import Config, load_config
    from hamgan.errors import ConfigError
    from hamgan.evaluation import evaluate
    from hamgan.hamburger import Hamburger
    from hamgan.networks import Discriminator, Generator, build_networks
    from hamgan.sampling import LoadedGenerator, load_generator
    from hamgan.segmentation import load_segmenter
    from hamgan.sharing import push_to_hub, save_pretrained
    from hamgan.training.loop import train

_HOMES = {
    "Config": "config",
    "ConfigError": "errors",
    "Discriminator": "networks",
    "Generator": "networks",
    "Hamburger": "hamburger",
    "LoadedGenerator": "sampling",
    "build_networks": "networks",
    "evaluate": "evaluation",
    "load_config": "config",
    "load_generator": "sampling",
    "load_segmenter": "segmentation",
    "push_to_hub": "sharing",
    "save_pretrained": "sharing",
    "train": "training.loop",
}

__all__ = [
    "Config",
    "ConfigError",
    "Discriminator",
    "Generator",
    "Hamburger",
    "LoadedGenerator",
    "build_networks",
    "evaluate",
    "load_config",
    "load_generator",
    "load_segmenter",
    "push_to_hub",
    "save_pretrained",
    "train",
]


def __getattr__(name: str) -> Any:
    # On first use: `--help` and configuration errors should not wait seconds for torch.
    if name in _HOMES:
        return getattr(import_module(f"hamgan.{_HOMES[name]}"), name)
    if name in ("convert", "config", "evaluation", "hamburger", "networks", "sampling", "segmentation"):
        return import_module(f"hamgan.{name}")
    if name == "__version__":
        return import_module("hamgan.machine").hamgan_version()
    raise AttributeError(f"module 'hamgan' has no attribute {name!r}")
