"""Compare two sets of features by nearest neighbours: precision, recall, density and coverage.

A set's manifold is the union of the balls around its features that reach each one's k-th neighbour.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hamgan.distributed.group import Processes

BLOCK_BYTES = 256 * 2**20
"""Largest distance matrix."""


def precision_recall(
    samples: Tensor, reference: Tensor, neighbours: int = 3, block_bytes: int = BLOCK_BYTES
) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019).

    Precision is the share of samples inside the reference's manifold, recall the share of references inside the
    samples'.

    Shapes: [N, D] and [M, D], all rows on every process; the processes share out the rows. No distance matrix is larger
    than ``block_bytes``.
    """
    radii_of_reference = _neighbour_distances(reference, neighbours, block_bytes)
    radii_of_samples = _neighbour_distances(samples, neighbours, block_bytes)

    def share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
        return _mean_over_rows(points, centres, lambda distances, _: (distances <= radii).any(1), block_bytes)

    precision = share_inside(samples, reference, radii_of_reference)
    return precision, share_inside(reference, samples, radii_of_samples)


def density_coverage(
    samples: Tensor, reference: Tensor, neighbours: int = 5, block_bytes: int = BLOCK_BYTES
) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020), as the authors' package ``prdc`` defines them.

    Density is the number of reference balls that a sample lies in, divided by ``neighbours`` and averaged; it may pass
    1. Coverage is the share of references whose ball holds a sample. Shapes and memory as in `precision_recall`.
    """
    radii = _neighbour_distances(reference, neighbours, block_bytes)
    balls = _mean_over_rows(samples, reference, lambda distances, _: (distances < radii).sum(1), block_bytes)
    coverage = _mean_over_rows(
        reference, samples, lambda distances, rows: distances.amin(1) < radii[rows.start : rows.stop], block_bytes
    )
    return balls / neighbours, coverage


def _neighbour_distances(points: Tensor, neighbours: int, block_bytes: int) -> Tensor:
    """Return the distance from each point [N, D] to its k-th neighbour, [N]."""
    processes = Processes.current()
    # The nearest of the neighbours + 1 smallest distances is the point itself.
    found = [
        distances.kthvalue(neighbours + 1).values for _, distances in _distances_of_share(points, points, block_bytes)
    ]
    return processes.gather_rows(torch.cat(found) if found else points.new_empty(0), len(points)).to(points.device)


def _mean_over_rows(
    points: Tensor, centres: Tensor, value: Callable[[Tensor, range], Tensor], block_bytes: int
) -> float:
    """Average, over all points, a value [rows] that is computed from distances [rows, centres] and the rows' range."""
    total = torch.zeros(1, dtype=torch.float64)
    for rows, distances in _distances_of_share(points, centres, block_bytes):
        total += value(distances, rows).sum().cpu()
    Processes.current().sum_(total)
    return float(total.item() / len(points))


def _distances_of_share(points: Tensor, centres: Tensor, block_bytes: int) -> Iterator[tuple[range, Tensor]]:
    """Yield the distances from blocks of this process's points to all centres, with the range of each block."""
    share = Processes.current().share(len(points))
    size = max(1, block_bytes // (4 * len(centres)))
    for start in range(share.start, share.stop, size):
        rows = range(start, min(start + size, share.stop))
        yield rows, torch.cdist(points[rows.start : rows.stop], centres)
