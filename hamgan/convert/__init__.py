"""Weights of the reference implementations to ours, and models that start from the weights of others."""

from hamgan.checkpoint.warm_start import ClassMapping, Initialisation, initialise_from, parse_class_mapping
from hamgan.convert.biggan import biggan_pytorch
from hamgan.convert.mapping import Conversion
from hamgan.convert.official import hamgan_tf
from hamgan.errors import ConversionError

__all__ = [
    "ClassMapping",
    "Conversion",
    "ConversionError",
    "Initialisation",
    "biggan_pytorch",
    "hamgan_tf",
    "initialise_from",
    "parse_class_mapping",
]
