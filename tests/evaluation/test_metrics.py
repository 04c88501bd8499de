"""Compare metrics of given features with torch-fidelity, float64 references and the official HamGAN's recordings."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from support.evaluations import features, moments
from support.paths import golden_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from hamgan.distributed.group import Processes
from hamgan.evaluation import nearest_class_mean
from hamgan.evaluation.metrics.cmmd import cmmd
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.evaluation.metrics.fid_infinity import fid_at_infinity
from hamgan.evaluation.metrics.inception_score import InceptionScore
from hamgan.evaluation.metrics.kid import kernel_distance
from hamgan.evaluation.metrics.mind import monge_distance
from hamgan.evaluation.metrics.prdc import compare_neighbours


@pytest.mark.parametrize(("count_1", "count_2"), [(300, 400), (20, 400), (30, 25)])
def test_fid_equals_torch_fidelity_with_and_without_full_rank(count_1: int, count_2: int) -> None:
    first, second = features(count_1, 64, 0), features(count_2, 64, 1, shift=0.2)
    expected = fid_statistics_to_metric(
        fid_features_to_statistics(first.double()), fid_features_to_statistics(second.double()), False
    )["frechet_inception_distance"]
    assert frechet_distance(*moments(first), *moments(second)) == pytest.approx(expected, rel=2e-7)


def test_fid_of_few_samples_equals_the_nuclear_norm_in_float64() -> None:
    first, second = features(30, 64, 0).double(), features(25, 64, 1, shift=0.2).double()
    centred = [(rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (first, second)]
    root = np.linalg.svd((centred[0] @ centred[1].T).numpy(), compute_uv=False).sum()
    squares = sum(float((rows**2).sum()) for rows in centred)
    expected = float(((first.mean(0) - second.mean(0)) ** 2).sum()) + squares - 2 * root
    assert frechet_distance(*moments(first), *moments(second)) == pytest.approx(expected, rel=1e-10)


def test_fid_of_features_that_never_move_is_the_distance_of_the_means() -> None:
    constant = torch.ones(10, 8)
    assert frechet_distance(*moments(constant), *moments(3 * constant)) == pytest.approx(8 * 4.0)


@pytest.mark.parametrize("batch", [1, 50, 700])
def test_moments_equal_float64_for_any_batch_size(batch: int) -> None:
    rows = features(1101, 32, 0)
    mean, covariance = moments(rows, batch)
    torch.testing.assert_close(mean, rows.double().mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(covariance, rows.double().T.cov(), rtol=1e-10, atol=1e-12)


def test_fid_and_inception_score_equal_the_official_recordings() -> None:
    recorded = np.load(golden_file("hamgan_tf/eval_metrics.npz"))
    real, fake = (torch.from_numpy(recorded[name]).flatten(0, 1) for name in ("real_pools", "fake_pools"))
    logits = torch.from_numpy(recorded["logits"]).flatten(0, 1)
    assert frechet_distance(*moments(real), *moments(fake)) == pytest.approx(float(recorded["fid"]), rel=1e-5)
    score = InceptionScore(len(logits), 1, logits.shape[1])
    score.update(logits, 0)
    assert score.result()[0] == pytest.approx(float(recorded["inception_score"]), rel=1e-6)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_equals_torch_fidelity_for_any_batch_size(splits: int) -> None:
    logits = 3 * torch.randn(103, 50, generator=torch.Generator().manual_seed(0))
    expected = isc_features_to_metric(logits, splits=splits)
    for batch in (1, 10, 103):
        score = InceptionScore(len(logits), splits, logits.shape[1])
        for first in range(0, len(logits), batch):
            score.update(logits[first : first + batch], first)
        mean, std = score.result()
        assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
        assert std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("kernel", "name"), [("polynomial", "poly"), ("rbf", "rbf")])
def test_kid_equals_torch_fidelity(kernel: str, name: str) -> None:
    first, second = features(150, 64, 0), features(120, 64, 1, shift=0.1)
    expected = kid_features_to_metric(first, second, kid_subsets=20, kid_subset_size=50, kid_kernel=name, verbose=False)
    mean, std = kernel_distance(first, second, subsets=20, subset_size=50, kernel=kernel)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_kid_equals_the_double_sum_in_float64() -> None:
    first, second = features(40, 16, 0).double(), features(40, 16, 1, shift=0.1).double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 16 + 1) ** 3)

    within = [sum(kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (first, second)]
    between = sum(kernel(a, b) for a in first for b in second)
    expected = (within[0] + within[1]) / (40 * 39) - 2 * between / 40**2
    assert kernel_distance(first.float(), second.float(), 100, 40)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("block_bytes", [1, 4 * 120 * 7, 2**28])
def test_precision_and_recall_equal_torch_fidelity_for_any_block(block_bytes: int) -> None:
    samples, reference = features(150, 16, 0), features(120, 16, 1, shift=0.8)
    expected = prc_features_to_metric(samples, reference, verbose=False)
    found = compare_neighbours(samples, reference, 3, None, block_bytes)
    assert 0.05 < expected["precision"] < 0.95
    assert found == pytest.approx({name: expected[name] for name in ("precision", "recall")}, abs=1e-6)


@pytest.mark.parametrize("block_bytes", [1, 4 * 120 * 7, 2**28])
def test_density_and_coverage_equal_prdc_for_any_block(block_bytes: int) -> None:
    samples, reference = features(150, 16, 0), features(120, 16, 1, shift=0.8)
    expected = compute_prdc(reference.numpy(), samples.numpy(), nearest_k=5)
    found = compare_neighbours(samples, reference, None, 5, block_bytes)
    assert 0.05 < expected["coverage"] < 0.95
    assert found == pytest.approx({name: expected[name] for name in ("density", "coverage")}, abs=1e-6)
    assert compare_neighbours(samples, reference, 3, 5) == compare_neighbours(samples, reference, 3, None) | found


@pytest.mark.parametrize("block_bytes", [1, 2**28])
def test_cmmd_equals_the_double_sum_in_float64(block_bytes: int) -> None:
    first, second = features(40, 16, 0, shift=0.2), features(30, 16, 1, shift=0.5)
    x, y = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (first, second))

    def mean_kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.mean([[np.exp(-float((i - j) @ (i - j)) / 200) for j in b] for i in a]))

    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert expected > 0.1
    assert cmmd(first, second, block_bytes) == pytest.approx(expected, rel=1e-9)


def test_mind_of_a_shifted_set_is_three_times_the_squared_shift() -> None:
    samples, shift = features(200, 64, 0), 0.5 * torch.randn(64, generator=torch.Generator().manual_seed(3))
    # Along a direction u every quantile moves by u * shift; over directions its square averages |shift|^2 / D.
    assert monge_distance(samples, samples + shift) == pytest.approx(3 * float(shift @ shift), rel=0.1)


def test_mind_equals_its_formula_and_cuts_the_larger_set() -> None:
    samples, reference = features(50, 8, 0), features(70, 8, 1, shift=0.3)
    generator = torch.Generator().manual_seed(2020)
    kept = reference[torch.randperm(70, generator=generator)[:50]]
    directions = torch.randn(1000, 8, generator=generator).double()
    directions /= directions.norm(dim=1, keepdim=True)
    each = [
        np.mean((np.sort(samples.double().numpy() @ u) - np.sort(kept.double().numpy() @ u)) ** 2)
        for u in directions.numpy()
    ]
    assert monge_distance(samples, reference) == pytest.approx(3 * 8 * np.mean(each), rel=1e-5)


def test_nearest_class_mean_scores_the_share_of_right_classes() -> None:
    train = torch.tensor([[0.0, 0.0], [0.0, 2.0], [10.0, 0.0], [10.0, 2.0]])
    labels = torch.tensor([0, 0, 3, 3])
    asked = torch.tensor([[1.0, 1.0], [9.0, 1.0], [2.0, 1.0], [8.0, 1.0]])
    assert nearest_class_mean(train, labels, asked, torch.tensor([0, 3, 0, 0])) == 0.75


@pytest.mark.parametrize(("total", "size"), [(7, 2), (7, 3), (1, 4), (8, 4)])
def test_shares_of_the_processes_are_disjoint_and_complete(total: int, size: int) -> None:
    shares = [list(Processes(rank, size).share(total)) for rank in range(size)]
    assert sum(shares, []) == list(range(total))  # noqa: RUF017 (a handful of short lists)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_fid_at_infinity_takes_the_bias_of_few_samples_away() -> None:
    """Check that samples of the reference's own distribution get 0, far below the FID of 2,000 of them."""
    reference, samples = features(60_000, 64, 0), features(2_000, 64, 1)
    at_infinity, residual = fid_at_infinity(samples, *moments(reference, 4096))
    biased = frechet_distance(*moments(reference, 4096), *moments(samples, 512))
    assert abs(at_infinity) < 0.15 * biased
    assert 0 < residual < 0.1 * biased
