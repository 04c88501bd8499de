from .biggan import biggan_pytorch as biggan_pytorch
from .mapping import Conversion as Conversion
from .official import hamgan_tf as hamgan_tf
