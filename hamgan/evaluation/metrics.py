"""The numbers, as functions and running sums of features; nothing here knows where an image came from.

Definitions follow torch-fidelity 0.4 (same permutation of the splits, same subsets and neighbours); sums are float64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from hamgan.distributed import Processes

SHUFFLE_SEED = 2020
"""torch-fidelity's `rng_seed`: permutes the samples before the Inception Score's splits, draws KID's subsets."""


class Moments:
    """Running sum and sum of outer products of features, in float64.

    Shapes: updates [B, D]; `total` [D], `outer` [D, D].
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.total = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)
        self.waiting: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """Add features [B, D]."""
        self.count += len(features)
        self.waiting.append(features.to(self.total.device))
        # The product reads and writes all of D x D (33 MB for Inception): a few hundred rows at once make it worth it.
        if sum(map(len, self.waiting)) >= 512:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            rows = torch.cat(self.waiting).to(self.total)
            self.waiting = []
            self.total += rows.sum(0)
            self.outer.addmm_(rows.mT, rows)

    def reduce(self, processes: Processes) -> None:
        """Add up the sums of all processes."""
        self._flush()
        count = torch.tensor([self.count], dtype=torch.int64)
        processes.sum_(count, self.total, self.outer)
        self.count = int(count.item())

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """The mean [D] and the unbiased covariance [D, D]; needs at least two samples."""
        self._flush()
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean, (covariance + covariance.mT) / 2


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    """FID: |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) (Heusel et al. 2017), in float64.

    Shapes: means [D], covariances [D, D]. The eigenvalues of C1 C2 are those of Lᵀ C2 L with C1 = L Lᵀ, which takes a
    third of the time of `eigvals` on the product and a tenth of `sqrtm`.
    """
    mean_1, covariance_1, mean_2, covariance_2 = (
        tensor.double().cpu() for tensor in (mean_1, covariance_1, mean_2, covariance_2)
    )
    lower, failed = torch.linalg.cholesky_ex(covariance_1)
    if failed:
        root_trace = _trace_of_root_singular(covariance_1, covariance_2)
    else:
        eigenvalues = torch.linalg.eigvalsh(lower.mT @ covariance_2 @ lower)
        root_trace = eigenvalues.clamp_min(0).sqrt().sum().item()
    difference = mean_1 - mean_2
    traces = covariance_1.trace() + covariance_2.trace()
    return float(difference @ difference + traces - 2 * root_trace)


def _trace_of_root_singular(covariance_1: Tensor, covariance_2: Tensor) -> float:
    """tr (C1 C2)^½ where a covariance has no Cholesky factor: fewer samples than features, or features that never move.

    The nuclear norm of A1ᵀ A2 with C = A Aᵀ, A of full column rank. Singular values are not squared on the way, so the
    many that are zero add 1e-16 each, where square roots of eigenvalues would add 1e-8; and few samples make A narrow.
    """
    factors = [_low_rank_factor(covariance) for covariance in (covariance_1, covariance_2)]
    if 0 in (factors[0].shape[1], factors[1].shape[1]):
        return 0.0
    return float(torch.linalg.svdvals(factors[0].mT @ factors[1]).sum())


def _low_rank_factor(covariance: Tensor) -> Tensor:
    """A [D, rank] with A Aᵀ = C, by a Cholesky factorisation that pivots and stops at the numerical rank."""
    factor, pivots, rank, _ = dpstrf(covariance.numpy(), lower=1)
    rows = np.empty((len(factor), rank))
    rows[pivots - 1] = np.tril(factor)[:, :rank]
    return torch.from_numpy(rows)


class InceptionScore:
    """Running sums of the Inception Score (Salimans et al. 2016): per split, class probabilities and negative entropy.

    `total` samples are permuted as torch-fidelity does and cut into `splits`; a sample is named by its index.
    """

    def __init__(self, total: int, splits: int, classes: int, device: torch.device | str = "cpu") -> None:
        self.splits = splits
        self.split_of = torch.from_numpy(_split_of_samples(total, splits)).to(device)
        self.counts = torch.bincount(self.split_of, minlength=splits).double()
        self.probabilities = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.negative_entropy = torch.zeros(splits, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, first: int) -> None:
        """Add logits [B, C] of the samples first, first + 1, ..."""
        log_p = logits.to(self.probabilities).log_softmax(1)
        p = log_p.exp()
        split = self.split_of[first : first + len(logits)]
        self.probabilities.index_add_(0, split, p)
        self.negative_entropy.index_add_(0, split, (p * log_p).sum(1))

    def reduce(self, processes: Processes) -> None:
        """Add up the sums of all processes."""
        processes.sum_(self.probabilities, self.negative_entropy)

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits."""
        marginal = self.probabilities / self.counts[:, None]
        entropy = torch.special.xlogy(marginal, marginal).sum(1)
        scores = (self.negative_entropy / self.counts - entropy).exp()
        return float(scores.mean()), float(scores.std(correction=0))


def _split_of_samples(total: int, splits: int) -> np.ndarray:
    order = np.random.RandomState(SHUFFLE_SEED).permutation(total)
    split_of = np.empty(total, dtype=np.int64)
    for split in range(splits):
        split_of[order[split * total // splits : (split + 1) * total // splits]] = split
    return split_of


@dataclass(frozen=True)
class KernelDistance:
    """KID, the mean over subsets of an unbiased estimate of the squared MMD, and its standard deviation."""

    mean: float
    std: float


def kernel_distance(
    samples: Tensor, reference: Tensor, subsets: int, subset_size: int, processes: Processes | None = None
) -> KernelDistance:
    """KID (Bińkowski et al. 2018): kernel (x·y / D + 1)³ on `subsets` random subsets of `subset_size` features a side.

    Shapes: [N, D] and [M, D], all rows on every process; the processes share out the subsets, torch-fidelity's own.
    Memory: three matrices of subset_size².
    """
    processes = processes or Processes()
    if subset_size == len(samples) == len(reference):
        subsets = 1  # all of them would be the same
    random = np.random.RandomState(SHUFFLE_SEED)
    estimates = torch.zeros(subsets, dtype=torch.float64)
    for subset in range(subsets):
        chosen_samples = torch.from_numpy(random.choice(len(samples), subset_size, replace=False))
        chosen_reference = torch.from_numpy(random.choice(len(reference), subset_size, replace=False))
        if subset % processes.size == processes.rank:
            estimates[subset] = _squared_mmd(samples[chosen_samples], reference[chosen_reference])
    processes.sum_(estimates)
    return KernelDistance(float(estimates.mean()), float(estimates.std(correction=0)))


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    size = len(x)
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = within_x.sum() - within_x.trace() + within_y.sum() - within_y.trace()
    return float(within / (size * (size - 1)) - 2 * between.sum() / size**2)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    # The product in float32 costs 1e-7 of each entry and halves the time; cubes and sums need float64.
    values = (x @ y.mT).double().div_(x.shape[1]).add_(1)
    return values * values * values


def precision_recall(
    samples: Tensor,
    reference: Tensor,
    neighbours: int = 3,
    processes: Processes | None = None,
    block_bytes: int = 256 * 2**20,
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019): the share of samples inside the reference's manifold
    (a ball around each feature that reaches its `neighbours`-th neighbour), and of references inside the samples'.

    Shapes: [N, D] and [M, D], all rows on every process; the processes share out the rows. No distance matrix is larger
    than `block_bytes`.
    """
    processes = processes or Processes()
    radius_of_reference = _neighbour_distance(reference, neighbours, processes, block_bytes)
    radius_of_samples = _neighbour_distance(samples, neighbours, processes, block_bytes)
    precision = _share_inside(samples, reference, radius_of_reference, processes, block_bytes)
    recall = _share_inside(reference, samples, radius_of_samples, processes, block_bytes)
    return precision, recall


def _neighbour_distance(points: Tensor, neighbours: int, processes: Processes, block_bytes: int) -> Tensor:
    share = processes.share(len(points))
    mine = points[share.start : share.stop]
    rows = max(1, block_bytes // (4 * len(points)))
    # The nearest of the neighbours + 1 smallest distances is the point itself.
    found = [torch.cdist(block, points).kthvalue(neighbours + 1).values for block in mine.split(rows)]
    return processes.gather_rows(torch.cat(found) if found else points.new_empty(0), len(points)).to(points.device)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor, processes: Processes, block_bytes: int) -> float:
    share = processes.share(len(points))
    rows = max(1, block_bytes // (4 * len(centres)))
    inside = torch.zeros(1, dtype=torch.float64)
    for block in points[share.start : share.stop].split(rows):
        inside += (torch.cdist(block, centres) <= radii).any(1).sum().cpu()
    processes.sum_(inside)
    return float(inside.item() / len(points))
