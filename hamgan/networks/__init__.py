"""Build generators and discriminators of BigGAN's family, with their spectral norm and batch norm."""

from hamgan.networks.build import build_networks, count_parameters
from hamgan.networks.context import Bases
from hamgan.networks.discriminator import Discriminator
from hamgan.networks.generator import Generator

__all__ = ["Bases", "Discriminator", "Generator", "build_networks", "count_parameters"]
