"""Find latents and classes of images, by optimisation."""

from hamgan.inversion.optimise import Inversion, invert
from hamgan.inversion.quality import Quality, measure_quality

__all__ = ["Inversion", "Quality", "invert", "measure_quality"]
