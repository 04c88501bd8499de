"""Draw images of seeds and classes: load generators, truncate latents, write sheets and walks."""

from hamgan.sampling.classes import imagenet_names, parse_classes, parse_numbers
from hamgan.sampling.generator import BatchNormStatistics, LoadedGenerator, default_device, to_uint8
from hamgan.sampling.latents import check_truncation, slerp, truncated_latent
from hamgan.sampling.loading import load_generator
from hamgan.sampling.plan import Plan, PlannedImage, plan_interpolation, plan_samples

__all__ = [
    "BatchNormStatistics",
    "LoadedGenerator",
    "Plan",
    "PlannedImage",
    "check_truncation",
    "default_device",
    "imagenet_names",
    "load_generator",
    "parse_classes",
    "parse_numbers",
    "plan_interpolation",
    "plan_samples",
    "slerp",
    "to_uint8",
    "truncated_latent",
]
