"""Find the nearest real images of generated ones, to see whether a generator copies its training images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.images import Images, Subset
from hamgan.evaluation.inputs.references import open_reference_images
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED
from hamgan.evaluation.metrics.prdc import BLOCK_BYTES
from hamgan.evaluation.reference import statistics_of_images
from hamgan.evaluation.statistics import Resources
from hamgan.files import JsonObject
from hamgan.sampling.sheets import draw_sheet


def nearest(features: Tensor, reference: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return distances and indices [N, count] of the nearest rows of ``reference`` [M, D] for features [N, D]."""
    if count > len(reference):
        raise ConfigError(f"{count} neighbours were asked for, but the set has {len(reference)} images")
    rows = max(1, BLOCK_BYTES // (4 * len(reference)))
    # The rounding of a matrix product would hide exact copies, whose distance is 0.
    found = [
        torch.cdist(block, reference, compute_mode="donot_use_mm_for_euclid_dist").topk(count, largest=False)
        for block in features.split(rows)
    ]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def neighbour_sheet(
    samples: Images,
    reference: str | Path,
    resources: Resources,
    file: Path,
    *,
    split: str = "train",
    rows: int = 12,
    neighbours: int = 6,
    max_count: int | None = None,
) -> JsonObject:
    """Draw ``rows`` samples, each with its nearest images of the training set to the right, most similar pair first.

    The samples with the smallest distances are drawn, so a copy is in the first row. Returns a row with the median
    distances of a sample to its nearest image and of an image to its nearest other one; for a generator that copies,
    the former is far smaller. ``max_count`` limits the search to that many random images.
    """
    images = open_reference_images(reference, split, samples.size[0])
    if max_count is not None and max_count < len(images):
        images = Subset(images, max_count)
    real = statistics_of_images(images, resources, keep_features=True).kept_features
    found = resources.measure(samples, "samples", keep_features=True).kept_features
    distances, indices = nearest(found, real, neighbours)
    order = torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(len(real)))  # sets are sorted by class
    among_real = nearest(real[order[: len(found)]], real, 2)[0][:, 1]
    if Processes.current().is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        shown = distances[:, 0].argsort()[:rows].tolist()
        _draw(samples, images, distances, indices, shown).save(file)
    return {
        "neighbours_of": samples.describe()["source"],
        "among": images.describe().get("source"),
        "split": split,
        "count": len(images),
        "median_distance": float(distances[:, 0].median()),
        "smallest_distance": float(distances[:, 0].min()),
        "median_distance_real": float(among_real.median()),
        **resources.extractor.describe(),
    }


def _draw(samples: Images, images: Images, distances: Tensor, indices: Tensor, order: Sequence[int]) -> Image.Image:
    strips = [torch.cat([samples.read([index]).cpu(), images.read(indices[index].tolist())]) for index in order]
    titles = [f"sample {index}: {distances[index, 0]:.3g}" for index in order]
    groups = [("sample", 1), ("nearest real images", indices.shape[1])]
    return draw_sheet(strips, titles, groups=groups)
