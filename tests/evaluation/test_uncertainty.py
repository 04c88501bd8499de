"""Check standard errors against the spread of real draws, and comparisons of two generators."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluations import FID, OPTIONS, features, moments, small_generator
from support.photo_crops import crop_photographs, save_flat
from torch import Tensor

from hamgan.checkpoint import save_generator
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureStatistics, evaluate, load_extractor, make_protocol
from hamgan.evaluation.command import main
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.evaluation.metrics.prdc import compare_neighbours
from hamgan.evaluation.metrics.standard_error import half_differences, halves, standard_errors
from hamgan.evaluation.statistics import Resources
from hamgan.evaluation.studies.comparison import Difference, compare

COMMON = ["--features", "efficientnet-lite0", "--device", "cpu", "--quiet"]
CPU = torch.device("cpu")


def statistics_of(rows: Tensor) -> FeatureStatistics:
    return FeatureStatistics(len(rows), *moments(rows, 512), features=rows)


@pytest.mark.parametrize("count", [400, 24])
def test_halves_give_the_spread_of_real_draws(count: int) -> None:
    """Check also fewer samples (24) than features (32), where a covariance is singular."""
    reference = features(4000, 32, 1, shift=0.3)
    few, of_reference = reference[:300], moments(reference, 4000)

    def numbers(found: FeatureStatistics) -> dict[str, float]:
        rows = found.kept_features
        fid = frechet_distance(*of_reference, found.mean, found.covariance)
        by_neighbours = compare_neighbours(rows, few)
        return {"fid": fid} | {name: by_neighbours[name] for name in ("precision", "density")}

    draws = [numbers(statistics_of(features(count, 32, seed))) for seed in range(100, 160)]
    estimates = []
    for seed in range(100, 108):
        differences = half_differences(statistics_of(features(count, 32, seed)), 20, numbers, CPU)
        estimates.append(standard_errors(differences))
    for name in draws[0]:
        spread = np.std([each[name] for each in draws], ddof=1)
        assert np.sqrt(np.mean([each[name] ** 2 for each in estimates])) == pytest.approx(spread, rel=0.35), name


def test_halves_are_disjoint_and_the_same_everywhere() -> None:
    first, again = list(halves(11, 3)), list(halves(11, 3))
    for (one, other), (same, _) in zip(first, again, strict=True):
        assert len(one) == len(other) == 5
        assert not set(one.tolist()) & set(other.tolist())
        assert torch.equal(one, same)
    assert not torch.equal(first[0][0], next(iter(halves(11, 1, stream=1)))[0])


def test_resamples_put_a_standard_error_beside_every_number(tmp_path: Path) -> None:
    samples, real = (save_flat(crop_photographs(seed, 3), tmp_path / str(seed)) for seed in (0, 1))
    metrics = ("fid", "is", "kid", "mind", "prc")
    row = evaluate(samples, real, metrics, resamples=4, **OPTIONS)
    for name in ("fid", "kid", "mind", "precision", "recall"):
        assert row[f"{name}_standard_error_efficientnet_lite0"] >= 0
    assert 0 < row["fid_standard_error_efficientnet_lite0"] < row[FID]
    plain = evaluate(samples, real, metrics, **OPTIONS)
    assert plain[FID] == row[FID]
    assert not any("standard_error" in key for key in plain)
    with pytest.raises(ConfigError, match="resamples is -1"):
        evaluate(samples, real, metrics, resamples=-1, **OPTIONS)


def difference(a: list[float], b: list[float], error: float | None = None, key: str = FID) -> Difference:
    return Difference(key, a, b, error, float("inf"))


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (difference([10.0], [14.0], 1.0), "A is better (confidence 99.99%)"),
        (difference([10.0], [11.0], 1.0), "not told apart (A: 84.13%)"),
        (difference([0.9], [0.5], 0.1, "precision"), "A is better (confidence 99.99%)"),
        (difference([9.0], [9.0], 1.0), "equal"),
        (difference([9.0], [8.0]), "B is better here; the confidence needs more seeds or --resamples"),
    ],
)
def test_a_verdict_says_how_sure_it_is(one: Difference, verdict: str) -> None:
    assert one.verdict == verdict


def test_few_seeds_are_trusted_less_than_their_spread_alone_would_have_it() -> None:
    few = Difference(FID, [10.0, 10.5], [11.0, 11.4], 0.05, freedom=1)
    assert few.confidence == pytest.approx(0.983, abs=0.002)  # of a normal distribution: 1
    assert few.margin == pytest.approx(12.706 * 0.05, rel=1e-3)


@pytest.fixture
def run_folders(tmp_path: Path) -> list[Path]:
    """Write two generators: the same network, and one whose images are nearly grey."""
    folders = []
    for name in ("a", "b"):
        generator = small_generator()
        if name == "b":
            with torch.no_grad():
                for parameter in list(generator.network.parameters())[-2:]:
                    parameter.mul_(0.01)
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        save_generator(folders[-1] / "generator.safetensors", generator.network, generator.config, kimg=2.0)
    return folders


def test_compare_tells_generators_apart_and_a_generator_not_from_itself(
    run_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = save_flat(crop_photographs(1, 6), tmp_path / "real")
    options = ["--reference", str(real), "--num-samples", "24", "--metrics", "fid,is,prc", "--resamples", "8", *COMMON]
    output = tmp_path / "compared.png"
    main(["compare", *map(str, run_folders), *options, "--output", str(output)])
    printed = capsys.readouterr().out
    assert "FID (efficientnet-lite0): A " in printed
    assert "is better (confidence 99." in printed
    assert "protocol of A: 24 samples (mean of seeds 0 to 2" in printed
    assert printed.count("warning: samples: 24 images for the covariance of 1280 features") == 1
    assert "note: all numbers are by ImageNet classifiers" in printed
    rows = {row["number"]: row for row in csv.DictReader(output.with_suffix(".csv").open())}
    fid = rows[FID]
    assert float(fid["low"]) < float(fid["a"]) - float(fid["b"]) < float(fid["high"])
    assert fid["seeds"] == "3"
    assert set(rows) == {f"{name}_efficientnet_lite0" for name in ("fid", "inception_score", "precision", "recall")}
    with Image.open(output) as picture:
        assert picture.width > 1000
    main(["compare", str(run_folders[0]), str(run_folders[0]), *options, "--output", str(output)])
    assert "A - B 0 ± 0: equal" in capsys.readouterr().out


def test_shared_latents_make_a_difference_surer(run_folders: list[Path], tmp_path: Path) -> None:
    """Check that the error of a paired difference is below that of two sides on their own."""
    other = small_generator()
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(0.004 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    real = save_flat(crop_photographs(1, 6), tmp_path / "real")
    resources = Resources(load_extractor("efficientnet-lite0", device="cpu"))
    protocol = make_protocol(metrics=["fid"], features="efficientnet-lite0", num_samples=40, resamples=8)
    (paired,), rows = compare((small_generator(), other), real, [(protocol, resources)])
    apart = [
        evaluate(side, real, ("fid",), num_samples=40, resamples=8, **OPTIONS) for side in (small_generator(), other)
    ]
    errors = [row["fid_standard_error_efficientnet_lite0"] for row in apart]
    assert paired.standard_error is not None
    assert paired.standard_error < 0.6 * float(np.hypot(*errors))
    assert [row[FID] for row in rows] == [row[FID] for row in apart]


def test_sets_of_other_sizes_are_cut_to_the_same_count_and_other_resolutions_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = (save_flat(crop_photographs(seed, 2 + seed), tmp_path / str(seed)) for seed in (0, 1))
    real = save_flat(crop_photographs(2, 2), tmp_path / "real")
    options = ["--reference", str(real), "--output", str(tmp_path / "x.png"), *COMMON]
    main(["compare", str(few), str(many), *options, "--metrics", "fid"])
    printed = capsys.readouterr().out
    assert printed.count("12 samples; against") == 2
    large = save_flat(crop_photographs(0, 2, 64), tmp_path / "large")
    with pytest.raises(ConfigError, match=r"A has images of 32 pixels, B of 64|has images of 32x32 pixels"):
        main(["compare", str(few), str(large), *options])
    with pytest.raises(ConfigError, match=r"there is nothing at .*absent"):
        main(["compare", str(few), str(tmp_path / "absent"), *options])
