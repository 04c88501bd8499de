"""Build the generator and the discriminator of BigGAN's family, spectral norm and batch norm included."""

from hamgan.networks.build import build_networks, count_parameters
from hamgan.networks.context import Bases
from hamgan.networks.discriminator import Discriminator
from hamgan.networks.generator import Generator

__all__ = ["Bases", "Discriminator", "Generator", "build_networks", "count_parameters"]
