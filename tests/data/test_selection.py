"""Check instance selection: what is left out, the index, training on it, and what evaluations say about it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.photo_crops import PHOTOGRAPHS, crop_photographs, save_by_class
from support.prepared import write_classes
from support.small_runs import run_small
from torch import Tensor

from hamgan.config import DataConfig
from hamgan.data import BatchLoader, ImageSource, open_source, open_training
from hamgan.data.preparation.command import main as prepare
from hamgan.data.selection import SelectedSource, Selection, read_selection, select_densest
from hamgan.errors import ConfigError, DataError
from hamgan.evaluation import evaluate, load_extractor
from hamgan.evaluation.selection import mahalanobis
from hamgan.evaluation.selection import main as select


class Mixed:
    """The first 20 held-out articles of each class, of which the last two are of the class four further on."""

    def __init__(self) -> None:
        self.inner = open_source("fashion", "val", 32)
        self.name, self.split, self.resolution = "mixed", "val", 32
        self.class_names = self.inner.class_names
        self.labels = self.inner.labels[: 9 * 20]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return self.inner.read(np.where(indices >= ODD, indices + 4, indices), out)

    def describe(self) -> dict[str, object]:
        return self.inner.describe()


ODD = 9 * 18
"""First image of `Mixed` that is of another class than its label says."""


def plain_mahalanobis(x: Tensor) -> Tensor:
    """Write Ledoit and Wolf's estimator (2004, section 3.2) out image by image."""
    x = x.double() - x.double().mean(0)
    n, p = x.shape
    sample = sum((torch.outer(row, row) for row in x), torch.zeros(p, p, dtype=torch.float64)) / n
    mean = float(sample.trace()) / p
    d2 = float((sample - mean * torch.eye(p)).square().sum()) / p
    b2 = sum(float((torch.outer(row, row) - sample).square().sum()) / p for row in x) / n**2
    share = min(b2, d2) / d2
    shrunk = share * mean * torch.eye(p, dtype=torch.float64) + (1 - share) * sample
    return torch.stack([row @ torch.linalg.inv(shrunk) @ row for row in x])


@pytest.mark.parametrize(("count", "dimension"), [(40, 6), (12, 30)])
def test_distances_are_those_of_the_shrunk_covariance(count: int, dimension: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(count, dimension, generator=random) * torch.linspace(0.1, 3, dimension) + 5
    assert torch.allclose(mahalanobis(x), plain_mahalanobis(x), rtol=1e-9)
    assert mahalanobis(torch.ones(5, 3)).tolist() == [0.0] * 5


def test_few_images_of_many_features_are_still_told_apart() -> None:
    """By their own covariance alone all of them would have the distance n - 1."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20, 100, generator=random)
    x[7] *= 3
    distances = mahalanobis(x)
    assert distances.argmax() == 7
    assert distances[7] > 2 * distances.median()


def test_images_of_another_class_are_left_out() -> None:
    source: ImageSource = Mixed()
    extractor = load_extractor("efficientnet-lite0")

    def extract(images: np.ndarray) -> np.ndarray:
        return extractor(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())[0].numpy()

    selected = select_densest(
        source, extract, lambda features: -mahalanobis(torch.from_numpy(features)).numpy(), keep=0.7
    )
    assert np.bincount(source.labels[selected]).tolist() == [14] * 9
    assert (np.diff(selected) > 0).all()
    assert (selected >= ODD).sum() <= 7  # of 18; blindly it would be 12 or 13


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write 10 held-out crops of each of six photographs, and 2 to train on."""
    root = tmp_path_factory.mktemp("pictures")
    for split, seed, count in (("val", 0, 10), ("train", 1, 2)):
        save_by_class(crop_photographs(seed, count), root / split)
    return str(root)


@pytest.fixture(scope="module")
def index(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an index of a fifth of the held-out crops by the command."""
    file = tmp_path_factory.mktemp("selection") / "indices/fifth.json"
    select([pictures, "--split", "val", "--keep", "0.2", "--output", str(file), "--quiet"])
    return file


def test_the_command_writes_an_index_that_training_sees(index: Path, pictures: str) -> None:
    selection = read_selection(index)
    source = open_training(DataConfig(pictures, split="val", selection=str(index)), 32)
    whole = open_source(pictures, "val", 32)
    assert isinstance(source, SelectedSource)
    assert len(source) == len(selection.indices) == len(PHOTOGRAPHS) * 2
    assert np.bincount(source.labels).tolist() == [2] * len(PHOTOGRAPHS)
    assert np.array_equal(source.read(np.array([3, 7])), whole.read(selection.indices[[3, 7]]))
    loader = BatchLoader(source, seed=0, start=0, batch_size=len(source))
    images, labels = next(loader)
    loader.close()
    assert sorted(labels.tolist()) == sorted(source.labels.tolist())
    known = {image.tobytes() for image in whole.read(selection.indices)}
    assert {image.numpy().tobytes() for image in images} == known
    assert "the densest 0.2 of every class by efficientnet-lite0:" in source.describe()["selection"]


@pytest.mark.slow
def test_a_run_records_its_selection_and_evaluations_say_it(index: Path, pictures: str, tmp_path: Path) -> None:
    data = [f"data.source={pictures}", "data.split=val", f"data.selection={index}"]
    run = run_small(tmp_path, *data, "train.total_kimg=0.016")
    common = {"num_samples": 18, "reference_samples": 18, "progress": False, "cache": False}
    row = evaluate(run, pictures, ["fid"], "efficientnet-lite0", **common)  # type: ignore[arg-type]
    assert row["selected"] == str(read_selection(index))
    assert f"trained on {row['selected']}" in row["protocol"]
    assert any("the selection of the images used efficientnet-lite0" in note for note in row["notes"])
    assert any("prc or density_coverage would show it" in note for note in row["notes"])
    assert row["reference_split"] == "val"
    assert row["reference_count"] == 18
    with pytest.raises(ConfigError, match=r"data\.selection"):
        run_small(tmp_path, f"data.source={pictures}", "data.split=val", "train.total_kimg=0.016")


def test_what_is_no_index_of_these_images_gets_a_sentence(index: Path, pictures: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"was made from other images than .*pictures0 \(train\) holds"):
        open_training(DataConfig(pictures, selection=str(index)), 32)
    values = json.loads(index.read_text())
    damaged = tmp_path / "damaged.json"
    for change, message in (
        ({"indices": values["indices"][1:]}, "is damaged"),
        ({"format": "x"}, "has format 'x'"),
        ({"keep": None, "indices": "none"}, "is no index"),
    ):
        damaged.write_text(json.dumps(values | change))
        with pytest.raises(DataError, match=message):
            read_selection(damaged)
    with pytest.raises(DataError, match="is no index"):
        read_selection(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="--keep is 1; allowed: above 0 and below 1"):
        select(["fashion", "--keep", "1"])
    with pytest.raises(ConfigError, match=r"--output .* is a folder; name a file"):
        select(["fashion", "--output", str(tmp_path)])


def test_an_index_survives_the_way_to_the_disk(tmp_path: Path) -> None:
    selection = Selection("train", "ab" * 32, "inception:01234567", 0.5, np.array([1, 5, 9]))
    selection.save(tmp_path / "index.json")
    again = read_selection(tmp_path / "index.json")
    assert (again.split, again.features, again.keep) == ("train", "inception:01234567", 0.5)
    assert np.array_equal(again.indices, selection.indices)
    assert again.sha256 == selection.sha256


def test_a_stores_index_lies_beside_it_and_loads_at_its_resolution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"cat": 6, "cup": 4}
    store, folder = tmp_path / "store", write_classes(tmp_path / "pictures", counts)
    prepare(["--source", str(folder), "--output", str(store), "--resolution", "32", "--workers", "1"])
    select([str(store), "--quiet"])
    file = tmp_path / "store-efficientnet-lite0-0.5.json"
    assert f"--data.source {store} --data.selection {file}" in capsys.readouterr().out
    source = open_training(DataConfig(str(store), selection=str(file)), 32)
    assert np.bincount(source.labels).tolist() == [3, 2]
    source.expect(np.array([0]))  # type: ignore[attr-defined]
