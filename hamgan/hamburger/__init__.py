"""Model global context by matrix decompositions (Geng et al. 2021, "Is Attention Better Than Matrix Decomposition?").

`decompositions` has NMF, VQ and CD as functions, `ham` owns their initial bases, `block` puts them between two 1x1
convolutions. The block is independent of GANs: its convolutions and norms are passed in.
"""

from hamgan.hamburger.block import Bases, Hamburger
from hamgan.hamburger.decompositions import cd, nmf, vq
from hamgan.hamburger.ham import Ham, measured_reconstruction, reconstruction_error

__all__ = [
    "Bases",
    "Ham",
    "Hamburger",
    "cd",
    "measured_reconstruction",
    "nmf",
    "reconstruction_error",
    "vq",
]
