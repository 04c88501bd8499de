"""Read training and reference images: embedded photographs, prepared stores, folders, archives, public data sets."""

import lazy_loader

# Names are loaded on first use, so that `--help` and user errors do not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
