"""Check our numbers against torch-fidelity and torchmetrics with one Inception file, and pytorch-fid's algebra."""

import argparse
from pathlib import Path

import pytest
import torch
import torch_fidelity
from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]  # ships none
from support.evaluations import features, moments
from support.photo_crops import crop_photographs, save_flat
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from benchmarks.evaluate import run
from benchmarks.evaluators import own_extractor
from benchmarks.extractors import CASES, Case
from benchmarks.networks import load_ours, load_theirs
from benchmarks.random_weights import CLIP_SIZES, random_dinov2, save_random_clip, save_random_inception
from hamgan.evaluation import Resources, evaluate
from hamgan.evaluation.inputs.images import FolderImages
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.files import sha256 as file_sha256


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an Inception weights file."""
    return save_random_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.mark.slow
def test_inception_numbers_equal_torch_fidelity(tmp_path: Path, weights: Path) -> None:
    samples, reference = (save_flat(crop_photographs(seed, 1), tmp_path / str(seed)) for seed in (0, 1))
    sha256 = file_sha256(weights)[:8]
    row = evaluate(
        samples, reference, ("fid", "is", "kid"), is_splits=2, kid_subset_size=4, inception_weights=weights,
        inception_sha256=sha256, progress=False, device="cpu",
    )  # fmt: skip
    expected = torch_fidelity.calculate_metrics(
        input1=str(samples), input2=str(reference), cuda=False, fid=True, isc=True, kid=True, isc_splits=2,
        kid_subset_size=4, feature_extractor_weights_path=str(weights), cache=False, verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    suffix = f"_inception_{sha256}"
    assert row[f"fid{suffix}"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert row[f"inception_score{suffix}"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    assert row[f"kid{suffix}"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)


def test_moments_of_inception_features_equal_torchmetrics(tmp_path: Path, weights: Path) -> None:
    pixels = crop_photographs(0, 1)
    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=False)
    metric.update(torch.from_numpy(pixels).permute(0, 3, 1, 2), real=True)
    mean = metric.real_features_sum / len(pixels)
    covariance = metric.real_features_cov_sum - len(pixels) * torch.outer(mean, mean)
    resources = Resources(own_extractor(weights, device=torch.device("cpu")))
    found = resources.measure(FolderImages(save_flat(pixels, tmp_path)))
    torch.testing.assert_close(found.mean, mean, rtol=1e-5, atol=1e-5 * float(mean.abs().max()))
    torch.testing.assert_close(
        found.covariance, covariance / (len(pixels) - 1), rtol=1e-3, atol=1e-5 * float(covariance.abs().max())
    )


@pytest.mark.parametrize("library", ["pytorch-fid", "torchmetrics"])
def test_fid_equals_the_matrix_part_of(library: str) -> None:
    first, second = (rows.double() for rows in (features(300, 64, 0), features(400, 64, 1, shift=0.2)))
    statistics = [value for rows in (first, second) for value in (rows.mean(0), rows.T.cov())]
    if library == "pytorch-fid":
        expected = calculate_frechet_distance(*[value.numpy() for value in statistics])
    else:
        expected = float(_compute_fid(*statistics))
    assert frechet_distance(*moments(first), *moments(second)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.long
def test_benchmark_has_a_line_per_evaluator_and_extractor(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.evaluate.DIMENSION", 64)  # of 2,048 features, sqrtm takes half a minute
    monkeypatch.setattr("benchmarks.evaluate.PIPELINE_BATCHES", 2)
    monkeypatch.setattr("benchmarks.extractors.ROWS", 50)
    monkeypatch.setattr("hamgan.evaluation.features.dinov2.DEPTH", 1)
    for name in CLIP_SIZES:
        monkeypatch.setitem(CLIP_SIZES, name, (64, 1))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- evaluation -->\nearlier tables\n<!-- end of evaluation -->\nafter\n")
    options = argparse.Namespace(
        device=torch.device("cpu"), images=4, batch=2, rounds=1, weights=weights, compile=False, docs=page
    )  # fmt: skip
    report = run(options)
    numbers = report.figures["numbers"]
    assert list(numbers)[:2] == ["hamgan", "torch-fidelity"]
    for name in ("fid", "score"):
        assert numbers["hamgan"][name] == pytest.approx(numbers["torch-fidelity"][name], rel=1e-4)
    assert numbers["hamgan"]["fid"] == pytest.approx(numbers["torchmetrics, antialias=False"]["fid"], rel=1e-3)
    text = page.read_text()
    assert "torchmetrics, default" in text
    assert "earlier" not in text
    assert list(report.figures["extractors"]) == [case.number for case in CASES]
    assert all(f"| {case.number} " in text for case in CASES)
    assert set(report.figures["neighbours"]["memory"]) == {"hamgan", "prdc 0.2"}


@pytest.fixture(scope="module")
def small_networks(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Write small networks of random weights, and Inception's."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "inception.pth").symlink_to(weights)
    torch.save(random_dinov2(2).state_dict(), folder / "dinov2.pth")
    for name in CLIP_SIZES:
        save_random_clip(folder / f"{name}.pt", name, 64, 2)
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_extractors_equal_the_networks_that_their_speed_is_compared_with(case: Case, small_networks: Path) -> None:
    images = torch.from_numpy(crop_photographs(0, 1, 64)[:2]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = load_theirs(case.name, case.resizer, small_networks)[1](images)
    found = load_ours(case.name, case.resizer, small_networks)(images)[0]
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
