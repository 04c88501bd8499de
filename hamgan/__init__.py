"""HamGAN: class-conditional GANs whose global-context block is a matrix decomposition.

Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021 (arXiv 2109.04553).
"""

from typing import Any

import lazy_loader

# On first use: `--help` and configuration errors should not wait seconds for torch.
_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from hamgan.machine import hamgan_version

        return hamgan_version()
    return _attribute(name)
