"""What features of less than float32 do to a FID: measured on a part of the samples, never assumed."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from hamgan.evaluation.features import FeatureExtractor
from hamgan.evaluation.images import Images
from hamgan.evaluation.metrics import frechet_distance
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import Subset, is_statistics_file, open_reference_images
from hamgan.evaluation.statistics import FeatureStatistics, measure

MOST_IMAGES = 2_000
"""A side. The bias of a FID of few images is in both figures and leaves their difference."""


def fid_change(
    images: Images,
    reference: str | Path | FeatureStatistics | None,
    extractor: FeatureExtractor,
    protocol: Protocol,
    shared: dict[str, Any],
) -> dict[str, Any]:
    """FID of up to 2,000 images a side with the extractor's precision and with fp32, and their difference.

    Empty where the reference's images are not at hand (a file of statistics).
    """
    if reference is None or isinstance(reference, FeatureStatistics) or is_statistics_file(reference):
        return {}
    resolution = images.read([0]).shape[-1]
    sides = [images, open_reference_images(reference, protocol.split, resolution)]
    parts = [Subset(side, MOST_IMAGES) if len(side) > MOST_IMAGES else side for side in sides]
    exact = replace(extractor, precision="fp32")
    found = [
        measure(part, network, title=f"{network.precision} check", **shared)
        for network, part in product((extractor, exact), parts)
    ]
    rounded, full = (
        frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance)
        for fake, real in (found[:2], found[2:])
    )
    return {
        f"fid_change_{extractor.precision}": rounded - full,
        "fid_change_of": full,
        "fid_change_images": [len(part) for part in parts],
    }


def describe_change(change: dict[str, Any], precision: str) -> list[str]:
    """What was found, in a sentence; none where nothing was."""
    if not change:
        return []
    moved, full, counts = change[f"fid_change_{precision}"], change["fid_change_of"], change["fid_change_images"]
    return [
        f"{precision} moved the FID of {counts[0]:,} samples against {counts[1]:,} reference images by {moved:+.2g} "
        f"from fp32's {full:.5g}"
    ]
