"""What features of less than float32 do to a FID: measured on a part of the samples, never assumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import Subset, is_statistics_file, reference_statistics
from hamgan.evaluation.statistics import FeatureStatistics, measure

MOST_IMAGES = 2_000
"""A side. The bias of a FID of few images is in both figures and leaves their difference."""


def fid_change(
    images: Images,
    reference: str | Path | FeatureStatistics | None,
    extractor: FeatureExtractor,
    protocol: Protocol,
    cache: str | Path | None,
    shared: dict[str, Any],
) -> dict[str, Any]:
    """FID of up to 2,000 images a side with the extractor's precision and with fp32, and their difference.

    Empty where the reference's images are not at hand (a file of statistics), and on all processes but the main one.
    """
    if reference is None or isinstance(reference, FeatureStatistics) or is_statistics_file(reference):
        return {}
    part = Subset(images, MOST_IMAGES) if len(images) > MOST_IMAGES else images
    most = min(MOST_IMAGES, protocol.reference_samples or MOST_IMAGES)
    sides = []
    for network in (extractor, replace(extractor, precision="fp32")):
        fake = measure(part, network, title=f"{network.precision} check", **shared)
        resolution = fake.description["resolution"]
        options = {"split": protocol.split, "resolution": resolution, "max_count": most, "cache": cache}
        sides.append((reference_statistics(reference, network, **options, **shared), fake))
    if not shared["processes"].is_main:
        return {}
    rounded, full = (frechet_distance(real.mean, real.covariance, fake.mean, fake.covariance) for real, fake in sides)
    return {
        f"fid_change_{extractor.precision}": rounded - full,
        "fid_change_of": full,
        "fid_change_images": [fake.count, sides[0][0].count],
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
