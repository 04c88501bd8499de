"""Build both networks of a configuration."""

import torch
from torch import nn

from hamgan.config import Config, validate
from hamgan.errors import ConfigError
from hamgan.networks.discriminator import Discriminator
from hamgan.networks.generator import Generator


def build_networks(config: Config) -> tuple[Generator, Discriminator]:
    """Build both networks of a configuration, with initial weights that are a function of ``config.seed``.

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
    """Return the number of trainable parameters, counted as scalars."""
    return sum(parameter.numel() for parameter in network.parameters())
