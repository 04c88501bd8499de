from .biggan import biggan_pytorch as biggan_pytorch
from .official import hamgan_tf as hamgan_tf
