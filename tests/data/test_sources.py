"""Check that `hamgan prepare` keeps the pictures and classes of every kind of source."""

import io
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT
from support.prepared import CLASSES, Wanted, add_bytes, call_command, encoded, images_of, run_command, write_shards

from hamgan.data import open_source
from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.store import read_manifest
from hamgan.errors import DataError

SYNSETS = {"cat": "n02123045", "cup": "n03063599", "rocket": "n04008634"}
DEVKIT_NUMBERS = {"rocket": 1, "cat": 2, "cup": 3}
VAL = [list(CLASSES)[number] for number in (2, 0, 0, 1, 2, 1, 0)]


def prepare(store: Path, *options: object) -> None:
    call_command("--output", store, "--resolution", 32, "--workers", 1, *options)


def check(store: Path, split: str, wanted: Wanted) -> None:
    """Check that the split holds exactly the encoded pictures of ``wanted``, class by class."""
    images, labels = images_of(store, split)
    names = read_manifest(store)["class_names"]
    assert set(wanted) <= set(names)
    assert len(images) == sum(map(len, wanted.values()))
    for name, pictures in wanted.items():
        found = [image.tobytes() for image in images[labels == names.index(name)]]
        assert sorted(found) == sorted(decode(data, Preparation(32)).tobytes() for data in pictures)


def pictures(count: int, first: int = 0) -> Wanted:
    return {name: [encoded(name, number) for number in range(first, first + count)] for name in CLASSES}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ImageNet's files as they are distributed: a tar of a tar per synset, a flat tar, and the labels."""
    from scipy.io import savemat

    root = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(root / "train.tar", "w") as outer:
        for name, synset in SYNSETS.items():
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as inner:
                for number in range(4):
                    add_bytes(inner, f"{synset}_{number * 17}.JPEG", encoded(name, number))
            add_bytes(outer, f"{synset}.tar", file.getvalue())
    with tarfile.open(root / "val.tar", "w") as archive:
        for number, name in enumerate(VAL, 1):
            add_bytes(archive, f"ILSVRC2012_val_{number:08d}.JPEG", encoded(name, 50 + number))
    synsets = np.empty((4, 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")])
    for row, (name, number) in enumerate(DEVKIT_NUMBERS.items()):
        synsets[row, 0] = (number, SYNSETS[name], name, "")
    synsets[3, 0] = (4, "n00001740", "entity", "")  # a class of classes, as the devkit has them too
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{DEVKIT_NUMBERS[name]}\n" for name in VAL).encode()
    files = {"ILSVRC2012_validation_ground_truth.txt": truth, "meta.mat": meta.getvalue()}
    with tarfile.open(root / "devkit.tar.gz", "w:gz") as archive:
        for file_name, data in files.items():
            add_bytes(archive, f"ILSVRC2012_devkit_t12/data/{file_name}", data)
            (root / file_name).write_bytes(data)
    rows = [(f"ILSVRC2012_val_{number:08d}", SYNSETS[name]) for number, name in enumerate(VAL, 1)]
    (root / "kaggle.csv").write_text("ImageId,PredictionString\n" + "".join(f"{k},{s} 85 1 499 272\n" for k, s in rows))
    (root / "synsets.txt").write_text("".join(f"{key}.JPEG {synset}\n" for key, synset in rows))
    return root


@pytest.mark.parametrize(
    "labels", ["devkit.tar.gz", "ILSVRC2012_validation_ground_truth.txt", "kaggle.csv", "synsets.txt"]
)
def test_imagenets_own_files(imagenet: Path, tmp_path: Path, labels: str) -> None:
    options = ("--source", imagenet / "train.tar", "--val-source", imagenet / "val.tar")
    prepare(tmp_path / "store", *options, "--labels", imagenet / labels)
    check(tmp_path / "store", "train", {SYNSETS[name]: data for name, data in pictures(4).items()})
    val: Wanted = {synset: [] for synset in SYNSETS.values()}
    for number, name in enumerate(VAL, 1):
        val[SYNSETS[name]].append(encoded(name, 50 + number))
    check(tmp_path / "store", "val", val)


def test_validation_pictures_without_their_classes_are_refused_at_once(imagenet: Path, tmp_path: Path) -> None:
    options = ("--source", imagenet / "train.tar", "--val-source", imagenet / "val.tar")
    with pytest.raises(DataError, match=r"val\.tar: 7 pictures without a class, .* name their classes in a file"):
        prepare(tmp_path / "store", *options)
    (tmp_path / "truth.txt").write_bytes((imagenet / "ILSVRC2012_validation_ground_truth.txt").read_bytes())
    with pytest.raises(DataError, match=r"truth\.txt holds ImageNet's class numbers without their synsets"):
        prepare(tmp_path / "store", *options, "--labels", tmp_path / "truth.txt")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_of_folders(tmp_path: Path, kind: str) -> None:
    entries = {
        f"photos/{split}/{name}/{number}.JPG": data
        for split, first, count in (("train", 0, 3), ("test", 30, 2))
        for name, data_of_class in pictures(count, first).items()
        for number, data in enumerate(data_of_class)
    }
    entries |= {"photos/README.txt": b"hello", "__MACOSX/photos/train/cat/._0.JPG": b"finder"}
    path = tmp_path / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in entries.items():
                packed.writestr(name, data)
    else:
        with tarfile.open(path, "w:" + kind.partition(".")[2]) as archive:  # type: ignore[call-overload]
            for name, data in entries.items():
                add_bytes(archive, name, data)
    prepare(tmp_path / "store", "--source", path)
    check(tmp_path / "store", "train", pictures(3))
    check(tmp_path / "store", "val", pictures(2, 30))
    assert sorted(item.name for item in (tmp_path / "store").iterdir()) == [
        "manifest.json",
        "skipped.jsonl",
        "train",
        "val",
    ]


@pytest.mark.parametrize("pattern", ["shard-{000..001}.tar", "shard-*.tar"])
def test_webdataset_shards(tmp_path: Path, pattern: str) -> None:
    wanted = write_shards(tmp_path)
    prepare(tmp_path / "store", "--source", tmp_path / pattern)
    check(tmp_path / "store", "train", wanted)
    source = open_source(str(tmp_path / pattern), "train", 32)
    stored, labels = images_of(tmp_path / "store")
    assert np.array_equal(source.labels, labels)
    assert np.array_equal(source.read(np.arange(len(source))), stored)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    shard = tmp_path / "shard-001.tar"
    with tarfile.open(shard) as archive:
        second = archive.getmembers()[1]
    shard.write_bytes(shard.read_bytes()[: second.offset_data + 10])
    with pytest.raises(DataError, match=rf"shard-001\.tar is damaged after {re.escape(second.name)}"):
        prepare(tmp_path / "store", "--source", tmp_path / "shard-{000..001}.tar")
    with pytest.raises(DataError, match=r"no file or folder at .*shard-002\.tar"):
        prepare(tmp_path / "store", "--source", tmp_path / "shard-{000..002}.tar")


NO_CHECKSUMS = """
from torchvision.datasets import CIFAR10, CIFAR100

for kind in (CIFAR10, CIFAR100):
    kind.train_list = [[name, None] for name, _ in kind.train_list]
    kind.test_list = [[name, None] for name, _ in kind.test_list]
    kind.meta = {**kind.meta, "md5": None}
"""


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_pickled_files(tmp_path: Path, name: str) -> None:
    """Write photographs into files of CIFAR's layout, hence with other checksums than torchvision's."""
    pixels = {
        split: np.stack([decode(data, Preparation(32)) for found in pictures(5, first).values() for data in found])
        for split, first in (("train", 0), ("test", 30))
    }
    rows = {split: images.transpose(0, 3, 1, 2).reshape(-1, 3072) for split, images in pixels.items()}
    labels = np.repeat(np.arange(3), 5).tolist()
    files: dict[str, object] = {}
    if name == "cifar10":
        folder = tmp_path / "cifar-10-batches-py"
        for batch in range(5):
            files[f"data_batch_{batch + 1}"] = {"data": rows["train"][batch::5], "labels": labels[batch::5]}
        files |= {"test_batch": {"data": rows["test"], "labels": labels}, "batches.meta": {"label_names": [*CLASSES]}}
    else:
        folder = tmp_path / "cifar-100-python"
        files = {split: {"data": found, "fine_labels": labels} for split, found in rows.items()}
        files["meta"] = {"fine_label_names": [*CLASSES]}
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(pickle.dumps(content))
    (tmp_path / "sitecustomize.py").write_text(NO_CHECKSUMS)
    options = ("--source", name, "--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    run_command(*options, HAMGAN_DATA=str(tmp_path), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert read_manifest(tmp_path / "store")["class_names"] == [*CLASSES]
    for split, ours in (("train", "train"), ("test", "val")):
        images, found = images_of(tmp_path / "store", ours)
        order = np.argsort(found, kind="stable")
        assert np.array_equal(found[order], labels)
        assert {image.tobytes() for image in images[order]} == {image.tobytes() for image in pixels[split]}


def test_cifar_that_is_not_there_names_the_file_to_bring(tmp_path: Path) -> None:
    options = ("--source", "cifar10", "--output", tmp_path / "store", "--resolution", 32)
    output = run_command(*options, code=2, HAMGAN_DATA=str(tmp_path), https_proxy="http://127.0.0.1:9")
    assert "put cifar-10-python.tar.gz there, or set HAMGAN_DATA to the folder that has it" in output


def test_a_hugging_face_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=list(CLASSES))})
    splits = {}
    for split, first, count in (("train", 0, 4), ("validation", 30, 2)):
        rows = [(data, label) for label, found in enumerate(pictures(count, first).values()) for data in found]
        columns = {"photo": [{"bytes": data, "path": None} for data, _ in rows], "kind": [label for _, label in rows]}
        splits[split] = datasets.Dataset.from_dict(columns, features=features)
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        splits[split].to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    run_command(
        "--source", f"hf:{tmp_path / 'set'}", "--output", tmp_path / "store", "--resolution", 32, HF_HUB_OFFLINE="1"
    )
    check(tmp_path / "store", "train", pictures(4))
    check(tmp_path / "store", "val", pictures(2, 30))
