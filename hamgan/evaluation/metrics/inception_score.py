"""Compute the Inception Score (Salimans et al. 2016)."""

import numpy as np
import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED


class InceptionScore:
    """Sum class probabilities and negative entropies, per split of the samples.

    ``total`` samples, identified by their index, are permuted like in torch-fidelity and cut into ``splits`` parts.
    """

    def __init__(self, total: int, splits: int, classes: int, device: torch.device | str = "cpu") -> None:
        self.splits = splits
        self.split_of = torch.from_numpy(_split_of_samples(total, splits)).to(device)
        self.counts = torch.bincount(self.split_of, minlength=splits).double()
        self.probabilities = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.negative_entropy = torch.zeros(splits, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, first: int) -> None:
        """Add the logits [B, C] of the samples ``first``, ``first`` + 1, ..."""
        log_p = logits.to(self.probabilities).log_softmax(1)
        p = log_p.exp()
        split = self.split_of[first : first + len(logits)]
        self.probabilities.index_add_(0, split, p)
        self.negative_entropy.index_add_(0, split, (p * log_p).sum(1))

    def reduce(self, processes: Processes) -> None:
        """Add up the sums of all processes."""
        processes.sum_(self.probabilities, self.negative_entropy)

    def result(self) -> tuple[float, float]:
        """Return the mean and the standard deviation over the splits."""
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
