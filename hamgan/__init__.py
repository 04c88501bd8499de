"""HamGAN: class-conditional GANs whose global-context block is a matrix decomposition.

Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021 (arXiv 2109.04553).
"""
