"""Measure how good a reconstruction is: PSNR, SSIM and the cosine of features."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from hamgan.evaluation import FeatureExtractor


@dataclass(frozen=True)
class Quality:
    """Hold the similarity of one image to another."""

    psnr: float
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    ssim: float
    """Structural similarity (Wang et al. 2004), 1 for equal images."""
    cosine: float
    """Cosine of the extractor's features, 1 for equal images."""

    def __str__(self) -> str:
        return f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.3f}, feature cosine {self.cosine:.3f}"


def measure_quality(images: Tensor, targets: Tensor, extractor: FeatureExtractor) -> list[Quality]:
    """Return the similarity of uint8 images [N, 3, H, W] to their targets [N, 3, H, W], one per image."""
    cosines = F.cosine_similarity(extractor(images)[0], extractor(targets)[0]).tolist()
    pairs = zip(_channels_last(images), _channels_last(targets), strict=True)
    figures = []
    for (image, target), cosine in zip(pairs, cosines, strict=True):
        with np.errstate(divide="ignore"):
            psnr = peak_signal_noise_ratio(target, image, data_range=255)
        ssim = structural_similarity(target, image, data_range=255, channel_axis=2)
        figures.append(Quality(float(psnr), float(ssim), cosine))
    return figures


def mean_quality(figures: list[Quality]) -> Quality:
    """Return the average of each figure."""
    rows = torch.tensor([[figure.psnr, figure.ssim, figure.cosine] for figure in figures], dtype=torch.float64)
    return Quality(*rows.mean(0).tolist())


def _channels_last(images: Tensor) -> np.ndarray:
    return images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
