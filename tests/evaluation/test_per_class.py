"""Test diversity and leakage per class against plain loops over images and pairs, and their row and files."""

import csv
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.evaluations import OPTIONS
from support.photo_crops import crop_photographs, save_by_class

from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.metrics.per_class import ByClass, class_numbers, compare_classes
from hamgan.evaluation.report import append_row
from hamgan.evaluation.studies.confusions import save_confusions

CLASSES = 4
Sides = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return overlapping groups of features, and their classes; class 3 has none."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % (CLASSES - 1)
    centres = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + torch.randn(count, 6, generator=random), labels


@pytest.fixture(scope="module")
def sides() -> Sides:
    return *clusters(60, 0), *clusters(45, 1)


@pytest.fixture(scope="module")
def found(sides: Sides) -> ByClass:
    return compare_classes(*sides, CLASSES)


def pairs(rows: torch.Tensor) -> float:
    return sum(float((a - b).square().sum()) for a, b in itertools.combinations(rows.double(), 2)) / math.comb(
        len(rows), 2
    )


def test_diversity_is_the_distance_of_pairs_over_that_of_real_pairs(sides: Sides, found: ByClass) -> None:
    features, labels, reference, reference_labels = sides
    for label in range(CLASSES - 1):
        expected = math.sqrt(pairs(features[labels == label]) / pairs(reference[reference_labels == label]))
        assert float(found.diversity[label]) == pytest.approx(expected, rel=1e-9)


def test_confusion_counts_the_nearest_real_means(sides: Sides, found: ByClass) -> None:
    features, labels, reference, reference_labels = sides
    means = [reference[reference_labels == label].double().mean(0) for label in range(CLASSES - 1)]
    counts = torch.zeros(CLASSES, CLASSES)
    for row, label in zip(features.double(), labels.tolist(), strict=True):
        counts[label, min(range(CLASSES - 1), key=lambda index: float((row - means[index]).norm()))] += 1
    assert 0.2 < float(counts.diagonal().sum() / counts.sum()) < 0.95
    torch.testing.assert_close(found.confusion[:3], (counts / 20)[:3].double())
    assert found.confusion[3].isnan().all()
    assert float(found.leakage[0]) == pytest.approx(1 - float(counts[0, 0]) / 20)


def test_a_real_image_is_compared_with_means_that_do_not_hold_it(sides: Sides, found: ByClass) -> None:
    _, _, reference, labels = sides
    counts = torch.zeros(CLASSES, CLASSES)
    for left_out, (row, label) in enumerate(zip(reference.double(), labels.tolist(), strict=True)):
        others = torch.arange(len(reference)) != left_out
        means = [reference[others & (labels == index)].double().mean(0) for index in range(CLASSES - 1)]
        counts[label, min(range(CLASSES - 1), key=lambda index: float((row - means[index]).norm()))] += 1
    torch.testing.assert_close(found.confusion_real[:3], (counts / 15)[:3].double())


def test_a_class_without_images_has_no_figures(found: ByClass) -> None:
    assert found.known.tolist() == [True, True, True, False]
    numbers = class_numbers(found, ["a", "b", "c", "d"])
    assert numbers["class_table"][3] == {
        "class": "d", "samples": 0, "reference": 0, "distance": None, "diversity": None, "leakage": None,
        "leakage_real": None,
    }  # fmt: skip
    assert numbers["class_leakage"] == pytest.approx(float(found.leakage[:3].mean()))
    json.dumps(numbers, allow_nan=False)


def test_a_single_real_image_is_no_class_mean_of_its_own() -> None:
    reference = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    found = compare_classes(reference, torch.tensor([0, 0, 1]), reference, torch.tensor([0, 0, 1]), 2)
    assert found.confusion.tolist() == [[1, 0], [0, 1]]
    assert found.confusion_real[1].tolist() == [1, 0]
    assert found.known.tolist() == [True, False]


def test_one_image_again_and_again_has_no_diversity() -> None:
    reference, labels = clusters(30, 0)
    found = compare_classes(reference[:1].repeat(30, 1), labels, reference, labels, CLASSES)
    assert found.diversity[:3].tolist() == [0.0, 0.0, 0.0]
    found = compare_classes(reference, labels, reference[:1].repeat(30, 1), labels, CLASSES)
    assert found.diversity[:3].isnan().all()


def test_swapped_and_collapsed_classes_of_photographs_are_named(tmp_path: Path, extractor: FeatureExtractor) -> None:
    real = save_by_class(crop_photographs(1, 8), tmp_path / "real")
    fake = save_by_class(crop_photographs(0, 8), tmp_path / "fake")
    for file in sorted((fake / "rocket").iterdir()):  # one image, again and again
        file.write_bytes((fake / "rocket/000.png").read_bytes())
    for file in sorted((fake / "brick").iterdir())[:6]:
        file.write_bytes((fake / "ihc" / file.name).read_bytes())
    row = evaluate(fake, real, ("per_class",), extractor=extractor, **OPTIONS)
    assert row["least_diverse_classes_efficientnet_lite0"][0] == "rocket 0"
    assert row["most_confused_classes_efficientnet_lite0"][0] == "brick as ihc 75.0% (real images 0.0%)"
    table = {entry["class"]: entry for entry in row["class_table_efficientnet_lite0"]}
    assert table["brick"]["leakage"] == 0.75
    assert 0.7 < table["chelsea"]["diversity"] < 1.4
    assert row["class_leakage_real_efficientnet_lite0"] < row["class_leakage_efficientnet_lite0"] < 0.5
    written = json.loads(append_row(row, tmp_path / "results.jsonl").read_text())
    assert len(json.dumps(written)) < 3000
    assert not [key for key in written if key.startswith(("class_table", "class_confusions"))]


@pytest.mark.slow
def test_a_thousand_classes_are_seconds_and_a_readable_picture(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(1000, 64, generator=random)
    labels = torch.arange(20_000) % 1000
    real, samples = (centres[labels] + torch.randn(20_000, 64, generator=random) for _ in range(2))
    samples[labels == 7] = centres[900] + 0.1 * samples[labels == 7]
    names = [f"class {index}" for index in range(1000)]
    start = time.process_time()
    numbers: dict[str, Any] = class_numbers(compare_classes(samples, labels, real, labels, 1000), names)
    assert time.process_time() - start < 60
    assert numbers["most_confused_classes"][0].startswith("class 7 as class 900 100.0%")
    picture, table = save_confusions(numbers["class_confusions"], names, tmp_path / "confusion.png", "protocol")
    with Image.open(picture) as image:
        assert image.width < 6000
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {"class": "class 7", "taken_for": "class 900", "share": "1.0", "share_real": "0.0"} in rows
    assert len(rows) < 10_000
