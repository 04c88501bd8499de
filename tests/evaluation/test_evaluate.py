"""Test `evaluate` on folders, arrays, data sets and generators: torch-fidelity's numbers and the protocol."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from support.evaluations import FID, OPTIONS, small_generator
from support.paths import ROOT
from support.photo_crops import PHOTOGRAPHS, crop_photographs, save_by_class, save_flat, save_store

from hamgan.errors import ConfigError
from hamgan.evaluation import (
    FeatureExtractor,
    FeatureStatistics,
    Resources,
    evaluate,
    load_extractor,
    load_reference,
    save_reference,
)
from hamgan.evaluation.inputs.images import ArrayImages, FolderImages
from hamgan.evaluation.metrics.class_accuracy import match_classes

SCORE = "inception_score_efficientnet_lite0"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write two flat folders of 18 and 24 crops."""
    root = tmp_path_factory.mktemp("crops")
    return save_flat(crop_photographs(0, 3), root / "a"), save_flat(crop_photographs(1, 4), root / "b")


@pytest.fixture(scope="session")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


def test_folder_against_folder_equals_torch_fidelity(folders: tuple[Path, Path], extractor: FeatureExtractor) -> None:
    metrics = ("fid", "is", "kid", "prc")
    row = evaluate(*folders, metrics, extractor=extractor, kid_subset_size=10, batch_size=5, **OPTIONS)
    expected = torch_fidelity.calculate_metrics(
        input1=str(folders[0]), input2=str(folders[1]), feature_extractor="efficientnet-lite0", cuda=False, fid=True,
        isc=True, kid=True, prc=True, kid_subset_size=10, cache=False, verbose=False, save_cpu_ram=True, batch_size=6,
    )  # fmt: skip
    assert row[FID] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert row[SCORE] == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert row["inception_score_std_efficientnet_lite0"] == pytest.approx(expected["inception_score_std"], rel=1e-4)
    assert row["kid_efficientnet_lite0"] == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-6)
    for name in ("precision", "recall"):
        assert row[f"{name}_efficientnet_lite0"] == pytest.approx(expected[name], abs=1e-6)


def test_row_says_how_the_numbers_were_made(folders: tuple[Path, Path], extractor: FeatureExtractor) -> None:
    row = evaluate(*folders, ("fid",), extractor=extractor, **OPTIONS)
    assert "fid" not in row
    assert (row["num_samples"], row["reference_count"], row["resolution"]) == (18, 24, 32)
    assert row["extractor"] == "efficientnet-lite0"
    assert len(row["reference_hash"]) == len(row["samples_hash"]) == 16
    for part in ("18 samples", str(folders[1]), row["reference_hash"], "efficientnet-lite0 fp32"):
        assert part in row["protocol"]
    assert [warning.split(":")[0] for warning in row["warnings"]] == ["samples", "reference"]
    json.dumps(row)


def test_strict_turns_too_few_samples_into_an_error(folders: tuple[Path, Path], extractor: FeatureExtractor) -> None:
    with pytest.raises(ConfigError, match="18 images for the covariance of 1280 features"):
        evaluate(*folders, ("fid",), extractor=extractor, strict=True, **OPTIONS)


def test_hash_is_of_the_images_and_not_of_their_order_or_batches(tmp_path: Path, extractor: FeatureExtractor) -> None:
    images = crop_photographs(0, 1)
    other = images.copy()
    other[0, 0, 0, 0] ^= 1
    hashes = []
    for number, (pixels, batch) in enumerate(((images, 4), (images[::-1], 5), (other, 4))):
        folder = FolderImages(save_flat(pixels, tmp_path / str(number)))
        hashes.append(Resources(extractor, batch).measure(folder).description["hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_array_of_adm_style_equals_the_folder(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    np.savez(tmp_path / "samples.npz", arr_0=crop_photographs(0, 3))
    found = evaluate(tmp_path / "samples.npz", None, ("is",), extractor=extractor, **OPTIONS)
    expected = evaluate(folders[0], None, ("is",), extractor=extractor, **OPTIONS)
    assert found[SCORE] == expected[SCORE]
    assert found["samples_hash"] == expected["samples_hash"]


def test_reference_file_gives_the_same_numbers(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = Resources(extractor).measure(FolderImages(folders[1]), keep_features=True)
    save_reference(statistics, tmp_path / "reference.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = [
        evaluate(folders[0], reference, ("fid", "kid"), extractor=extractor, **OPTIONS)
        for reference in (folders[1], "~/reference.safetensors")
    ]
    for key in (FID, "kid_efficientnet_lite0", "reference_hash", "reference_count"):
        assert rows[0][key] == rows[1][key]


def test_a_reference_file_is_taken_whole_and_says_so(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    file = save_reference(Resources(extractor).measure(FolderImages(folders[1])), tmp_path / "reference.safetensors")
    told = []
    for reference, count in ((file, 23), (file, 24), (folders[1], 23)):
        row = evaluate(folders[0], reference, ("fid",), reference_samples=count, extractor=extractor, **OPTIONS)
        told.append([warning for warning in row["warnings"] if "whole" in warning])
    words = "reference_samples is 23, but the reference holds statistics of 24 images, which are taken whole"
    assert told == [[words], [], []]


@pytest.mark.parametrize("names", [("mu", "sigma"), ("mu", "sigma", "mu_s", "sigma_s")])
def test_npz_of_other_tools_is_a_reference(
    names: tuple[str, ...], tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    statistics = Resources(extractor).measure(FolderImages(folders[1]))
    values: dict[str, Any] = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    values |= {name: np.zeros(3) for name in names[2:]}
    np.savez(tmp_path / "stats.npz", **values)
    row = evaluate(folders[0], tmp_path / "stats.npz", ("fid",), extractor=extractor, **OPTIONS)
    assert row[FID] == evaluate(*folders, ("fid",), extractor=extractor, **OPTIONS)[FID]
    assert row["reference_count"] is None
    assert "unknown count" in row["protocol"]


def test_reference_of_another_resizer_is_refused_by_name(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    file = save_reference(Resources(extractor).measure(FolderImages(folders[1])), tmp_path / "reference.safetensors")
    with pytest.raises(ConfigError, match=r"resizer bilinear.* \(reference\) and bicubic.*clean-fid"):
        evaluate(folders[0], file, ("fid",), resizer="clean", **OPTIONS)


def test_reference_of_another_resolution_is_refused(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    file = save_reference(Resources(extractor).measure(FolderImages(folders[1])), tmp_path / "reference.safetensors")
    large = save_flat(crop_photographs(0, 1, size=48), tmp_path / "large")
    with pytest.raises(ConfigError, match=r"resolution 32 \(reference\) and 48 \(samples\)"):
        evaluate(large, file, ("fid",), extractor=extractor, **OPTIONS)
    with pytest.raises(ConfigError, match="32x32 pixels, the samples have 48x48"):
        evaluate(large, folders[1], ("fid",), extractor=extractor, **OPTIONS)


def test_reference_of_another_extractor_is_refused(
    tmp_path: Path, folders: tuple[Path, Path], extractor: FeatureExtractor
) -> None:
    np.savez(tmp_path / "inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(ConfigError, match=r"length 2048, efficientnet-lite0 gives 1280"):
        evaluate(folders[0], tmp_path / "inception.npz", ("fid",), extractor=extractor, **OPTIONS)


def test_generator_is_a_function_of_the_seed_and_not_of_the_batch(extractor: FeatureExtractor) -> None:
    generator = small_generator()
    rows = [
        evaluate(
            generator, None, ("is",), extractor=extractor, num_samples=12, is_splits=2, batch_size=batch, seed=seed,
            **OPTIONS,
        )
        for batch, seed in ((12, 0), (5, 0), (12, 1))
    ]  # fmt: skip
    assert rows[0][SCORE] == pytest.approx(rows[1][SCORE], rel=1e-6)
    assert rows[0][SCORE] != pytest.approx(rows[2][SCORE], rel=1e-6)
    assert rows[0]["kimg"] == 1.5
    assert "seed 0, uniform labels, truncation 1, EMA, ema BN statistics, 1.5 kimg" in rows[0]["protocol"]


def test_generated_images_equal_saved_pngs(tmp_path: Path, extractor: FeatureExtractor) -> None:
    generator = small_generator()
    row = evaluate(
        generator, None, ("is",), extractor=extractor, num_samples=6, labels="balanced", truncation=0.5, **OPTIONS
    )
    for seed, image in enumerate(generator(seeds=range(6), classes=range(6), truncation=0.5)):
        image.save(tmp_path / f"{seed}.png")
    saved = evaluate(tmp_path, None, ("is",), extractor=extractor, **OPTIONS)
    assert row[SCORE] == pytest.approx(saved[SCORE], rel=1e-6)


def test_repeats_give_the_mean_and_the_spread_over_seeds(extractor: FeatureExtractor) -> None:
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor, "num_samples": 8, "is_splits": 1}
    each = [evaluate(small_generator(), None, ("is",), seed=seed, **options)[SCORE] for seed in (0, 1)]
    row = evaluate(small_generator(), None, ("is",), repeats=2, **options)
    assert row[SCORE] == pytest.approx(np.mean(each))
    assert row["inception_score_seeds_std_efficientnet_lite0"] == pytest.approx(np.std(each, ddof=1))


def test_standing_statistics_change_the_images_but_not_the_generator(extractor: FeatureExtractor) -> None:
    generator = small_generator()
    before = {name: value.clone() for name, value in generator.network.state_dict().items()}
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor, "num_samples": 8, "is_splits": 1}
    rows = [
        evaluate(generator, None, ("is",), batch_norm=kind, batch_size=batch_size, **options)
        for kind, batch_size in ((None, 8), ("standing", 8), ("standing", 3))
    ]
    assert rows[0][SCORE] != pytest.approx(rows[1][SCORE], rel=1e-4)
    assert rows[1][SCORE] == pytest.approx(rows[2][SCORE], rel=1e-6)
    assert all(torch.equal(before[name], value) for name, value in generator.network.state_dict().items())


def test_training_labels_follow_the_histogram_of_the_reference(tmp_path: Path) -> None:
    from hamgan.evaluation.inputs.generated import draw_labels

    labels = draw_labels("training", 1000, 3, 0, torch.tensor([0, 3, 1]))
    counts = torch.bincount(labels, minlength=3)
    assert counts[0] == 0
    assert 680 < int(counts[1]) < 820


def test_training_labels_are_drawn_as_a_store_of_any_resolution_has_them(
    tmp_path: Path, extractor: FeatureExtractor
) -> None:
    store = save_store(crop_photographs(0, 2, size=64), tmp_path / "store")
    sizes = {"resolution": 64, "generator.latent_dim": 10, "data.num_classes": len(PHOTOGRAPHS)}
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor, "num_samples": 4, "labels": "training"}
    assert evaluate(small_generator(**sizes), store, ("is",), **options)["labels"] == "training"


def test_photographs_tell_the_classes_of_real_crops_from_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extractor: FeatureExtractor
) -> None:
    monkeypatch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES", 45)
    monkeypatch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES_PER_CLASS", 3)
    options: dict[str, Any] = {**OPTIONS, "num_samples": 12, "reference_samples": 30, "labels": "balanced"}
    rows = [
        evaluate(small_generator(), "photos", ("fid", "class_accuracy"), cache=tmp_path, extractor=extractor, **options)
        for _ in range(2)
    ]
    assert rows[0]["reference_subset"] == "30 of 12,000 at random"
    assert rows[0]["class_accuracy_real_efficientnet_lite0"] > 0.6 > rows[0]["class_accuracy_efficientnet_lite0"]
    assert {load_reference(file).description["split"] for file in tmp_path.glob("*.safetensors")} == {"train", "val"}
    assert rows[0][FID] == rows[1][FID]


def test_classes_of_folders_are_matched_by_name(tmp_path: Path, extractor: FeatureExtractor) -> None:
    real = save_by_class(crop_photographs(1, 3), tmp_path / "real")
    fake = save_by_class(crop_photographs(0, 3), tmp_path / "fake")
    row = evaluate(fake, real, ("per_class",), extractor=extractor, **OPTIONS)
    right = row["class_distance_efficientnet_lite0"]
    assert len(row["class_table_efficientnet_lite0"]) == len(PHOTOGRAPHS)
    (fake / "astronaut").rename(fake / "swap")
    (fake / "brick").rename(fake / "astronaut")
    (fake / "swap").rename(fake / "brick")
    wrong = evaluate(fake, real, ("per_class",), extractor=extractor, **OPTIONS)
    assert wrong["class_distance_efficientnet_lite0"] > 1.5 * right
    assert {name.split()[0] for name in wrong["worst_classes_efficientnet_lite0"][:2]} == {"astronaut", "brick"}


def test_nan_images_are_an_error_and_never_a_number(extractor: FeatureExtractor) -> None:
    generator = small_generator()
    with torch.no_grad():
        next(generator.network.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigError, match="NaN or infinite"):
        evaluate(generator, None, ("is",), extractor=extractor, num_samples=4, **OPTIONS)


def test_array_of_floats_with_nan_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", arr_0=np.full((2, 8, 8, 3), np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"x\.npz: arr_0 is float32, not uint8; it has NaN"):
        ArrayImages(tmp_path / "x.npz")


def test_mixed_sizes_name_the_file_and_both_sizes(tmp_path: Path, extractor: FeatureExtractor) -> None:
    save_flat(crop_photographs(0, 1), tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "999.png")
    with pytest.raises(ConfigError, match=r"999\.png is 40x30 pixels, 000\.png 32x32.*hamgan prepare"):
        evaluate(tmp_path, None, ("is",), extractor=extractor, **OPTIONS)


def test_unreadable_image_is_named(tmp_path: Path, extractor: FeatureExtractor) -> None:
    save_flat(crop_photographs(0, 1), tmp_path)
    content = (tmp_path / "003.png").read_bytes()
    (tmp_path / "003.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"003\.png cannot be decoded"):
        evaluate(tmp_path, None, ("is",), extractor=extractor, **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("fdi",)}, "unknown metric 'fdi'; did you mean `fid`"),
        ({"num_sample": 4}, "unknown option `num_sample`.*did you mean `num_samples`"),
        ({"labels": "unifrom"}, "labels is 'unifrom'.*did you mean `uniform`"),
        ({"truncation": 0.0}, "truncation is 0.0; it must be positive"),
        ({"seed": 2**31, "num_samples": 50_000}, "seed is .* must be 0 to"),
        ({"metrics": ("fid",)}, "fid need a reference"),
        ({"metrics": ("fid",), "reference": "absent"}, "no reference at absent.*photos"),
        (
            {"metrics": ("kid",), "num_samples": 10_000_000},
            "features of 10,000,000 samples for kid take about 47.7 GiB",
        ),
        ({"preset": "bigan"}, "presets: hamgan-paper, biggan; did you mean `biggan`"),
        ({"preset": ROOT / "configs/photos.yaml"}, "photos.yaml is the configuration of a run; a preset is"),
    ],
)
def test_wrong_options_are_explained(changes: dict[str, Any], message: str, extractor: FeatureExtractor) -> None:
    options: dict[str, Any] = {"reference": None, "metrics": ("is",), "num_samples": 4, **OPTIONS, **changes}
    with pytest.raises(ConfigError, match=message):
        evaluate(small_generator(), extractor=extractor, **options)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("hamgan-paper", (50_176, "val", 1, False)), ("biggan", (50_000, "train", 10, True))],
)
def test_presets_are_the_published_protocols(preset: str, expected: tuple[Any, ...]) -> None:
    from hamgan.evaluation import make_protocol

    protocol = make_protocol(preset)
    assert (protocol.num_samples, protocol.split, protocol.is_splits, protocol.ema) == expected
    assert make_protocol(preset, num_samples=9).num_samples == 9


def test_labels_follow_the_names_of_the_classes() -> None:
    nothing = torch.zeros(0)
    found = FeatureStatistics(3, nothing, nothing, labels=torch.tensor([0, 1, 1]), class_names=["cat", "moon"])
    labels = torch.tensor([0, 2, 1])
    reference = FeatureStatistics(3, nothing, nothing, labels=labels, class_names=["brick", "moon", "cat"])
    assert match_classes(found, reference).tolist() == [2, 1, 1]
    reference.class_names = ["cat", "sun"]
    with pytest.raises(ConfigError, match="no class 'moon'; it has cat, sun"):
        match_classes(found, reference)


def test_classes_without_names_or_with_one_name_are_matched_by_index() -> None:
    nothing = torch.zeros(0)
    found, reference = (FeatureStatistics(3, nothing, nothing, labels=torch.tensor([0, 1, 2])) for _ in range(2))
    found.class_names = reference.class_names = ["crane", "cat", "crane"]
    assert match_classes(found, reference).tolist() == [0, 1, 2]
    found.class_names, reference.labels = None, torch.tensor([0, 1, 1])
    assert match_classes(found, reference).tolist() == [0, 1, 2]
    reference.class_names = None
    with pytest.raises(ConfigError, match="a class of index 2, but the reference has 2 classes"):
        match_classes(found, reference)
