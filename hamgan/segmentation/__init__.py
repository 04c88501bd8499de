"""Segment images: HamNet and Light-Ham (Geng et al. 2021; Guo et al. 2022), trained, evaluated and exact.

A `Segmenter` is an encoder (`van`, or a network of timm) and a head around `hamgan.hamburger`.
"""

import lazy_loader

# What others use, each name from its module on first use: `--help` and a user's mistake should not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
