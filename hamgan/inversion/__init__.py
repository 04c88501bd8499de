"""Find latents and classes of images, by optimisation."""

import lazy_loader

# What others use, each name from its module on first use: `--help` and a user's mistake should not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
