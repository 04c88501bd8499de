"""Weights of the reference implementations to ours: BigGAN-PyTorch and the official HamGAN (TensorFlow)."""

from hamgan.convert.biggan import biggan_pytorch
from hamgan.convert.mapping import Conversion, ConversionError
from hamgan.convert.official import hamgan_tf

__all__ = ["Conversion", "ConversionError", "biggan_pytorch", "hamgan_tf"]
