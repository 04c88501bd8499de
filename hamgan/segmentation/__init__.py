"""Segment images: HamNet and Light-Ham (Geng et al. 2021; Guo et al. 2022), training, evaluation and converted weights.

A `Segmenter` is an encoder (`van`, or a network of timm) and a head around `hamgan.hamburger`.
"""

import lazy_loader

# Names are loaded on first use, so that `--help` and user errors do not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
