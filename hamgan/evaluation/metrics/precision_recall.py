"""Compute precision and recall by nearest neighbours (Kynkäänniemi et al. 2019)."""

import torch
from torch import Tensor

from hamgan.distributed.group import Processes

BLOCK_BYTES = 256 * 2**20
"""Largest distance matrix."""


def precision_recall(
    samples: Tensor, reference: Tensor, neighbours: int = 3, block_bytes: int = BLOCK_BYTES
) -> tuple[float, float]:
    """Return improved precision and recall.

    Precision is the share of samples inside the reference's manifold (a ball around each feature that reaches its
    ``neighbours``-th neighbour), recall the share of references inside the samples'.

    Shapes: [N, D] and [M, D], all rows on every process; the processes share out the rows. No distance matrix is larger
    than ``block_bytes``.
    """
    radius_of_reference = _neighbour_distance(reference, neighbours, block_bytes)
    radius_of_samples = _neighbour_distance(samples, neighbours, block_bytes)
    precision = _share_inside(samples, reference, radius_of_reference, block_bytes)
    recall = _share_inside(reference, samples, radius_of_samples, block_bytes)
    return precision, recall


def _neighbour_distance(points: Tensor, neighbours: int, block_bytes: int) -> Tensor:
    processes = Processes.current()
    share = processes.share(len(points))
    mine = points[share.start : share.stop]
    rows = max(1, block_bytes // (4 * len(points)))
    # The nearest of the neighbours + 1 smallest distances is the point itself.
    found = [torch.cdist(block, points).kthvalue(neighbours + 1).values for block in mine.split(rows)]
    return processes.gather_rows(torch.cat(found) if found else points.new_empty(0), len(points)).to(points.device)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor, block_bytes: int) -> float:
    processes = Processes.current()
    share = processes.share(len(points))
    rows = max(1, block_bytes // (4 * len(centres)))
    inside = torch.zeros(1, dtype=torch.float64)
    for block in points[share.start : share.stop].split(rows):
        inside += (torch.cdist(block, centres) <= radii).any(1).sum().cpu()
    processes.sum_(inside)
    return float(inside.item() / len(points))
