"""Check that sets too small for a number are named, and that no number is NaN without a word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluations import FID, OPTIONS, features, moments
from support.photo_crops import crop_photographs, save_by_class, save_flat

from hamgan.errors import ConfigError
from hamgan.evaluation import (
    FeatureExtractor,
    FeatureStatistics,
    check_reference,
    evaluate,
    load_extractor,
    make_protocol,
)
from hamgan.evaluation.command import main as command
from hamgan.evaluation.metrics.compute import compute_numbers
from hamgan.evaluation.metrics.fid import frechet_distance

CROPS = crop_photographs(0, 2)
SUFFIX = "_efficientnet_lite0"


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="module")
def measured(extractor: FeatureExtractor) -> Callable[..., dict[str, Any]]:
    def measure(samples: Path, reference: Path, *metrics: str, **options: Any) -> dict[str, Any]:
        return evaluate(samples, reference, metrics, extractor=extractor, **{**OPTIONS, **options})

    return measure


def test_classes_that_do_not_fit_are_named_before_samples_are_drawn(
    tmp_path: Path, measured: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, flat = save_by_class(CROPS, tmp_path / "classes"), save_flat(CROPS, tmp_path / "flat")
    for samples, reference, side in ((flat, classes, "samples"), (classes, flat, "reference")):
        with pytest.raises(ConfigError, match=f"the {side} have no classes, which numbers by class need"):
            measured(samples, reference, "per_class")
    monkeypatch.setattr("hamgan.evaluation.evaluator.measure_samples", lambda *_: pytest.fail("samples are measured"))
    np.savez(tmp_path / "many.npz", arr_0=CROPS, arr_1=np.arange(12))
    with pytest.raises(ConfigError, match="the samples have a class of index 11, but the reference has 6 classes"):
        measured(tmp_path / "many.npz", classes, "per_class")


def test_one_picture_on_either_side_is_a_sentence(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    one, many = save_flat(CROPS[:1], tmp_path / "one"), save_flat(CROPS, tmp_path / "many")
    for sides in ((one, many), (many, one)):
        with pytest.raises(ConfigError, match="one has one image; a covariance needs two at least"):
            measured(*sides, "fid")
    with pytest.raises(ConfigError, match="one has one image"):
        check_reference(one, ["fid"], 32)


@pytest.mark.parametrize("batch_size", [3, 5])
def test_a_folder_against_itself_is_exactly_0(
    tmp_path: Path, batch_size: int, measured: Callable[..., dict[str, Any]]
) -> None:
    flat, classes = save_flat(CROPS, tmp_path / "flat"), save_by_class(CROPS[::-1], tmp_path / "classes")
    for samples, reference in ((flat, flat), (flat, classes), (classes, flat)):
        assert measured(samples, reference, "fid", batch_size=batch_size)[FID] == 0


def test_the_distance_of_equal_moments_is_0_and_that_of_others_is_not() -> None:
    mean, covariance = moments(features(400, 64, 0))
    assert frechet_distance(mean, covariance, mean, covariance) == 0
    again, same = moments(features(400, 64, 0).flip(0), batch=11)
    assert 0 <= frechet_distance(mean, covariance, again, same) < 1e-9
    assert frechet_distance(mean, covariance, mean + 1e-3, covariance) == pytest.approx(64e-6, rel=1e-3)
    assert np.isnan(frechet_distance(mean * torch.nan, covariance, mean, covariance))


def test_the_same_images_have_distance_0_whatever_their_moments_were_rounded_to() -> None:
    mean, covariance = moments(features(400, 64, 0))
    sides = [
        FeatureStatistics(400, mean + shift, covariance, {"hash": name, "extractor": "efficientnet-lite0"})
        for shift, name in ((0.0, "a"), (1e-5, "a"), (1e-5, "b"))
    ]
    protocol = make_protocol(metrics=["fid"])
    assert compute_numbers(sides[1], sides[0], None, protocol)["fid"] == 0
    assert compute_numbers(sides[2], sides[0], None, protocol)["fid"] == pytest.approx(64e-10, rel=1e-2)


def test_classes_left_out_of_an_average_are_named(
    tmp_path: Path, extractor: FeatureExtractor, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fake = (
        save_by_class(images, tmp_path / name) for name, images in (("real", CROPS), ("fake", CROPS[:, ::-1]))
    )
    (fake / "brick" / "000.png").unlink()
    for file in (real / "coffee").iterdir():
        Image.new("RGB", (32, 32), "brown").save(file)
    sources = ["--checkpoint", str(fake), "--reference", str(real), "--metrics", "per_class"]
    command([*sources, "--features", "efficientnet-lite0", "--device", "cpu", "--quiet"])
    printed = capsys.readouterr().out
    assert "left out of the averages over classes: 1 of 6 classes with fewer than two images on a side" in printed
    assert "brick (1 and 2); of diversity 1 classes whose real images are all the same: coffee" in printed
    assert "nan" not in printed


def test_an_average_over_no_class_is_none_and_said(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    real, fake = (tmp_path / side / "only" for side in ("real", "fake"))
    save_flat(CROPS, fake)
    save_flat(np.stack([CROPS[0]] * 4), real)
    row = measured(fake.parent, real.parent, "per_class", "fid", repeats=1)
    assert row[f"class_diversity{SUFFIX}"] is None
    assert row[f"classes_left_out{SUFFIX}"] == "of diversity 1 classes whose real images are all the same: only"
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))


def test_no_class_with_two_pictures_is_a_sentence(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    singles = save_by_class(CROPS[::2], tmp_path / "singles")
    with pytest.raises(ConfigError, match="no class has two images on both sides"):
        measured(singles, singles, "per_class")


def test_few_samples_are_warned_of_or_refused(tmp_path: Path, measured: Callable[..., dict[str, Any]]) -> None:
    few = save_flat(CROPS[:6], tmp_path / "few")
    row = measured(few, few, "fid", "is", "kid")
    assert any("Inception Score: no split of 1 samples scores above 1" in warning for warning in row["warnings"])
    assert any("6 images for the covariance of 1280 features" in warning for warning in row["warnings"])
    with pytest.raises(ConfigError, match="fid_inf needs 8 samples at least"):
        measured(few, few, "fid_inf")
    with pytest.raises(ConfigError, match="need more than neighbours = 6"):
        measured(few, few, "prc", neighbours=6)
