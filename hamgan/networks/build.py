"""The generator and the discriminator: BigGAN's residual networks, which also span the official HamGAN's.

Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019 (appendix B);
Geng et al., ICLR 2021 (appendix on GANs). What differs between the families is configuration.
"""

import torch
from torch import nn

from hamgan.config import Config, validate
from hamgan.errors import ConfigError
from hamgan.networks.discriminator import Discriminator
from hamgan.networks.generator import Generator


def build_networks(config: Config) -> tuple[Generator, Discriminator]:
    """Both networks of a configuration, with initial weights that are a function of ``config.seed``.

    Works under ``torch.device("meta")``. Raises ConfigError when ``data.num_classes`` is not known.
    """
    classes = config.data.num_classes
    if not classes:
        raise ConfigError("data.num_classes is not set; training reads it from the data, other uses must give it")
    validate(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = Generator(config.generator, config.resolution, classes)
        discriminator = Discriminator(config.discriminator, config.resolution, classes)
    return generator, discriminator


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())
