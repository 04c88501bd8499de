"""Convert weights of the reference implementations to ours."""

from hamgan.convert.biggan import biggan_pytorch
from hamgan.convert.mapping import Conversion
from hamgan.convert.official import hamgan_tf
from hamgan.errors import ConversionError

__all__ = ["Conversion", "ConversionError", "biggan_pytorch", "hamgan_tf"]
