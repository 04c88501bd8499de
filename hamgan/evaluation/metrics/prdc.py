"""Compare two sets of features by nearest neighbours: precision, recall, density and coverage.

A set's manifold is the union of balls around its features with the distance to the k-th neighbour as radius.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hamgan.distributed.group import Processes

BLOCK_BYTES = 256 * 2**20
"""Largest distance matrix, in bytes."""


def compare_neighbours(
    samples: Tensor,
    reference: Tensor,
    neighbours: int | None = 3,
    coverage_neighbours: int | None = 5,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, float]:
    """Return ``precision`` and ``recall`` by ``neighbours``, ``density`` and ``coverage`` by ``coverage_neighbours``.

    Precision is the share of samples inside the reference's manifold, recall the share of references inside the
    samples' (Kynkäänniemi et al. 2019). Density is the number of reference balls that contain a sample, divided by k
    and averaged, which may exceed 1; coverage is the share of references whose ball contains a sample (Naeem et al.
    2020, as in their package ``prdc``). None for k leaves a pair out. Every distance is computed once, for both pairs.

    Shapes: [N, D] and [M, D], all rows on every process; the processes divide the rows. No distance matrix is larger
    than ``block_bytes``.
    """
    wanted = [k for k in (neighbours, coverage_neighbours) if k]
    of_reference = dict(zip(wanted, _neighbour_distances(reference, wanted, block_bytes), strict=True))
    of_samples = _neighbour_distances(samples, [neighbours], block_bytes)[0] if neighbours else None
    inside, balls = (torch.zeros(1, dtype=torch.int64, device=samples.device) for _ in range(2))
    recalled, covered = (torch.zeros(len(reference), dtype=torch.int32, device=samples.device) for _ in range(2))
    for rows, distances in _distances_of_share(samples, reference, block_bytes):
        if neighbours and of_samples is not None:
            inside += (distances <= of_reference[neighbours]).any(1).sum()
            recalled += (distances <= of_samples[rows.start : rows.stop, None]).any(0)
        if coverage_neighbours:
            within = distances < of_reference[coverage_neighbours]
            balls += within.sum()
            covered += within.any(0)
    Processes.current().sum_(inside, balls, recalled, covered)
    numbers: dict[str, float] = {}
    if neighbours:
        numbers |= {"precision": inside.item() / len(samples), "recall": float((recalled > 0).double().mean())}
    if coverage_neighbours:
        density = balls.item() / (coverage_neighbours * len(samples))
        numbers |= {"density": density, "coverage": float((covered > 0).double().mean())}
    return numbers


def _neighbour_distances(points: Tensor, neighbours: list[int], block_bytes: int) -> Tensor:
    """Return the distances from each point [N, D] to its k-th neighbours, [len(neighbours), N]."""
    # The smallest of the k + 1 distances is to the point itself. `topk` takes an eighth of the time of `kthvalue`.
    found = [
        distances.topk(max(neighbours) + 1, largest=False).values[:, neighbours]
        for _, distances in _distances_of_share(points, points, block_bytes)
    ]
    rows = torch.cat(found) if found else points.new_empty(0, len(neighbours))
    return Processes.current().gather_rows(rows, len(points)).to(points.device).mT.contiguous()


def _distances_of_share(points: Tensor, centres: Tensor, block_bytes: int) -> Iterator[tuple[range, Tensor]]:
    """Yield the distances from blocks of this process's points to all centres, with the range of each block."""
    share = Processes.current().share(len(points))
    size = max(1, block_bytes // (4 * len(centres)))
    for start in range(share.start, share.stop, size):
        rows = range(start, min(start + size, share.stop))
        yield rows, torch.cdist(points[rows.start : rows.stop], centres)
