"""Is it memory? The nearest real images of generated ones, as a sheet and as a number."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.reference import Subset, open_reference_images
from hamgan.evaluation.statistics import measure
from hamgan.sampling.sheets import draw_sheet


@dataclass(frozen=True)
class Neighbours:
    """For N samples their k nearest images of a set, nearest first, by the distance of features."""

    indices: Tensor
    """int64 [N, k], of the set."""
    distances: Tensor
    """float32 [N, k]."""


def nearest(features: Tensor, reference: Tensor, count: int, block_bytes: int = 256 * 2**20) -> Neighbours:
    """The `count` nearest rows of `reference` [M, D] for every row of `features` [N, D]; block by block."""
    if count > len(reference):
        raise ConfigError(f"{count} neighbours were asked for, but the set has {len(reference)} images")
    rows = max(1, block_bytes // (4 * len(reference)))
    # The matrix product's rounding would hide exact copies at distance 0, which are what is looked for.
    found = [
        torch.cdist(block, reference, compute_mode="donot_use_mm_for_euclid_dist").topk(count, largest=False)
        for block in features.split(rows)
    ]
    return Neighbours(torch.cat([part.indices for part in found]), torch.cat([part.values for part in found]))


def neighbour_sheet(
    samples: Images,
    reference: str | Path,
    extractor: FeatureExtractor,
    file: str | Path,
    *,
    split: str = "train",
    rows: int = 12,
    neighbours: int = 6,
    max_count: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Draw `rows` samples, each with its nearest images of the training set to the right, most similar pair first.

    The pairs that are nearest of all samples are drawn: a copy shows in the first row. Returns the row of numbers:
    medians of the distance of a sample to its nearest image, and of an image of the set to its nearest other one (a
    generator that copies has a far smaller one). `options` are `measure`'s.
    """
    processes = Processes.current()
    size = int(samples.read([0]).shape[-1])
    images: Images = open_reference_images(reference, split, size)
    if max_count is not None and max_count < len(images):
        images = Subset(images, max_count)
    real = measure(images, extractor, keep_features=True, title="reference", **options)
    found = measure(samples, extractor, keep_features=True, title="samples", **options)
    assert real.features is not None
    assert found.features is not None
    near = nearest(found.features, real.features, neighbours)
    among = nearest(real.features[: len(found.features)], real.features, 2)
    if processes.is_main:
        order = near.distances[:, 0].argsort()[:rows].tolist()
        _draw(samples, images, near, order).save(_prepared(Path(file)))
    return {
        "neighbours_of": samples.describe()["source"],
        "among": images.describe().get("source"),
        "split": split,
        "count": len(images),
        "median_distance": float(near.distances[:, 0].median()),
        "smallest_distance": float(near.distances[:, 0].min()),
        "median_distance_real": float(among.distances[:, 1].median()),
        **extractor.describe(),
    }


def _draw(samples: Images, images: Images, near: Neighbours, order: list[int]) -> Image.Image:
    size = int(samples.read([0]).shape[-1])
    strips, titles = [], []
    for index in order:
        strips.append(torch.cat([samples.read([index]).cpu(), images.read(near.indices[index].tolist())]))
        titles.append(f"sample {index}: {near.distances[index, 0]:.3g}")
    groups = [("sample", 1), ("nearest real images", near.indices.shape[1])]
    return draw_sheet(strips, titles, groups=groups, scale=max(1, 96 // size))


def _prepared(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
