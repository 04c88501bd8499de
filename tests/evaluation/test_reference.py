"""Check that a data set as reference is measured by its pictures, however they are stored."""

import hashlib
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from support.evaluations import FID, OPTIONS
from support.photo_crops import PHOTOGRAPHS, crop_photographs, save_by_class, save_flat
from support.prepared import encoded

from hamgan.data.decoding.decode import Preparation
from hamgan.data.finding.listing import list_pictures
from hamgan.data.finding.tables import open_cifar
from hamgan.data.preparation.prepare import prepare
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, evaluate, load_extractor
from hamgan.evaluation.reference import reference_histogram

VAL = crop_photographs(1, 3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write class folders below ``train/`` and ``val/``, at 32 px."""
    root = tmp_path_factory.mktemp("source")
    save_by_class(crop_photographs(2, 2), root / "train")
    save_by_class(VAL, root / "val")
    return root


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_flat(crop_photographs(0, 2), tmp_path_factory.mktemp("samples"))


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace CIFAR-10's files, as torchvision reads them, by ones with photographs inside."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    labels = np.repeat(np.arange(len(PHOTOGRAPHS)), 3).tolist()
    batch = {"data": VAL.transpose(0, 3, 1, 2).reshape(len(VAL), -1), "labels": labels}
    contents: dict[str, Any] = {"test": batch, "train": batch, "meta": {"label_names": list(PHOTOGRAPHS)}}
    md5 = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "label_names", "md5": md5["meta"]})
    monkeypatch.setenv("HAMGAN_DATA", str(tmp_path))
    open_cifar.cache_clear()
    yield
    open_cifar.cache_clear()


def check(samples: Path, reference: Any, source: Path, extractor: FeatureExtractor) -> dict[str, Any]:
    """Return the row against a reference, after comparing it with that of the same pictures in folders."""
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor}
    row = evaluate(samples, reference, ("fid",), **options)
    expected = evaluate(samples, source / "val", ("fid",), **options)
    assert row[FID] == pytest.approx(expected[FID], rel=1e-6)
    assert row["reference_hash"] == expected["reference_hash"]
    assert (row["reference_split"], row["reference_count"]) == ("val", len(VAL))
    return row


def test_a_prepared_store_is_a_reference(
    tmp_path: Path,
    source: Path,
    samples: Path,
    extractor: FeatureExtractor,
) -> None:
    store = tmp_path / "store"
    prepare(str(source), list_pictures(str(source), store / "work" / "unpacked"), store, Preparation(32), workers=1)
    row = check(samples, store, source, extractor)
    assert "crop" in row["reference_preparation"]


def test_files_of_cifar10_are_a_reference(
    cifar: None,
    source: Path,
    samples: Path,
    extractor: FeatureExtractor,
) -> None:
    check(samples, "cifar10", source, extractor)


def test_an_archive_is_a_reference(
    tmp_path: Path,
    source: Path,
    samples: Path,
    extractor: FeatureExtractor,
) -> None:
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        archive.add(source, ".")
    check(samples, tmp_path / "pictures.tar", source, extractor)


def test_a_file_that_is_nothing_of_that_is_named(
    tmp_path: Path,
    samples: Path,
    extractor: FeatureExtractor,
) -> None:
    (tmp_path / "notes.txt").write_text("no reference")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        evaluate(samples, tmp_path / "notes.txt", ("fid",), extractor=extractor, **OPTIONS)


def test_linked_folders_are_measured_too(
    tmp_path: Path, source: Path, samples: Path, extractor: FeatureExtractor
) -> None:
    (tmp_path / "links").mkdir()
    for folder in (source / "val").iterdir():
        (tmp_path / "links" / folder.name).symlink_to(folder)
    (tmp_path / "links" / ".thumbnail.png").write_bytes(b"no picture")
    options: dict[str, Any] = {**OPTIONS, "extractor": extractor}
    rows = [evaluate(samples, folder, ("fid",), **options) for folder in (tmp_path / "links", source / "val")]
    assert rows[0]["reference_count"] == len(VAL)
    assert rows[0]["reference_hash"] == rows[1]["reference_hash"]


def test_the_classes_of_a_reference_are_counted_in_the_order_of_the_samples(tmp_path: Path) -> None:
    for name in range(12):
        (tmp_path / str(name)).mkdir()
        for number in range(1 + name):
            (tmp_path / str(name) / f"{number}.jpg").write_bytes(encoded("cat", number))
    earlier = sorted(str(name) for name in range(12))  # 0, 1, 10, 11, 2, ...
    counts = reference_histogram(tmp_path, "train", 32, earlier)
    assert counts is not None
    assert counts.tolist() == [1 + int(name) for name in earlier]
    in_its_own_order = reference_histogram(tmp_path, "train", 32, None)
    assert in_its_own_order is not None
    assert in_its_own_order.tolist() == list(range(1, 13))
