"""Check what folders and archives are taken for, in the forms in which data sets are handed around."""

import json
import logging
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from support.prepared import add_bytes, encoded

from hamgan.data import open_source
from hamgan.data.finding.listing import list_pictures
from hamgan.data.finding.picture import Listing
from hamgan.errors import DataError

SMALL = encoded("cat", 0)
Counts = dict[str, dict[str, int]]


def write(root: Path, names: Iterable[str]) -> Path:
    """Write a picture under each name; bytes that are not UTF-8 are given as surrogates."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(SMALL)
    return root


def numbered(folder: str, count: int, first: int = 0) -> list[str]:
    return [f"{folder}/{number}.jpg" for number in range(first, first + count)]


def counts(listing: Listing) -> Counts:
    """Count the pictures per split and class."""
    found = {
        split: Counter(listing.class_names[picture.label] for picture in pictures)
        for split, pictures in listing.pictures.items()
    }
    return {split: dict(of_split) for split, of_split in found.items() if of_split}


def found_in(source: Path, spool: Path) -> Counts:
    return counts(list_pictures(str(source), spool))


TREES: dict[str, tuple[list[str], Counts]] = {
    "a class called train, of sequences": (
        [name for c in ("bus", "train", "car") for s in ("seq1", "seq2") for name in numbered(f"{c}/{s}", 2)],
        {"train": {"bus": 4, "car": 4, "train": 4}},
    ),
    "a class called train, of pictures": (
        [*numbered("bus", 2), *numbered("train", 3), *numbered("test tube", 1)],
        {"train": {"bus": 2, "test tube": 1, "train": 3}},
    ),
    "classes called train and test, with other folders below": (
        [*numbered("train/s1", 1), *numbered("train/s2", 1), *numbered("test/s3", 2), *numbered("car/s4", 1)],
        {"train": {"car": 1, "test": 2, "train": 2}},
    ),
    "splits that hold the same classes": (
        [*numbered("Train/cat", 2), *numbered("Train/cup", 1), *numbered("VALIDATION/cup", 1)],
        {"train": {"cat": 2, "cup": 1}, "val": {"cup": 1}},
    ),
    "three splits": (
        [name for s in ("train", "test", "valid") for c in ("cat", "cup") for name in numbered(f"{s}/{c}", len(s))],
        {"train": {"cat": 5, "cup": 5}, "val": {"cat": 5, "cup": 5}},
    ),
    "a split without classes": (
        [*numbered("train/cat", 1), *numbered("train/cup", 2), *numbered("test", 3)],
        {"train": {"cat": 1, "cup": 2}},
    ),
    "Kaggle's wrappers": (
        [
            *numbered("training_set/training_set/cats", 2),
            *numbered("training_set/training_set/dogs", 2),
            *numbered("test_set/test_set/cats", 1),
            *numbered("test_set/test_set/dogs", 1),
        ],
        {"train": {"cats": 2, "dogs": 2}, "val": {"cats": 1, "dogs": 1}},
    ),
    "Kaggle's split without classes, wrapped": (
        [
            *numbered("seg_train/seg_train/sea", 1),
            *numbered("seg_train/seg_train/ice", 1),
            *numbered("seg_pred/seg_pred", 2),
            *numbered("seg_test/seg_test/sea", 1),
        ],
        {"train": {"ice": 1, "sea": 1}, "val": {"sea": 1}},
    ),
    "wrappers with strays beside them": (
        [*numbered("set/images/cat", 1), *numbered("set/images/cup", 1), "set/preview.png", "logo.png"],
        {"train": {"cat": 1, "cup": 1}},
    ),
    "the whole set once more inside": (
        [f"chest/{more}{s}/{c}/1.jpg" for more in ("", "chest/") for s in ("train", "test") for c in ("no", "yes")],
        {"train": {"no": 1, "yes": 1}, "val": {"no": 1, "yes": 1}},
    ),
    "debris of other systems": (
        [
            *("cat/0.jpg", "cup/0.jpg", "@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/._0.jpg", "cat/._0.jpg"),
            *("cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_S.jpg", ".ipynb_checkpoints/0.jpg", "cup/.ipynb_checkpoints/0.jpg"),
            *("#recycle/old/0.jpg", "$RECYCLE.BIN/0.jpg", ".hidden/0.jpg", "lost+found/0.jpg"),
        ],
        {"train": {"cat": 1, "cup": 1}},
    ),
    "spellings of one class": (
        [
            *numbered("train/Caf\u00e9", 1),
            *numbered("train/cat", 1),
            *numbered("val/cafe\u0301", 1),
            *numbered("val/Cat", 1),
        ],
        {"train": {"Caf\u00e9": 1, "cat": 1}, "val": {"Caf\u00e9": 1, "cat": 1}},
    ),
    "two classes that differ in capitals": (
        [*numbered("train/cat", 1), *numbered("train/Cat", 2), *numbered("val/cat", 1)],
        {"train": {"Cat": 2, "cat": 1}, "val": {"cat": 1}},
    ),
    "paths that Windows has packed": (
        ["data\\train\\cat\\0.jpg", "data\\train\\cup\\0.jpg", "data\\val\\cat\\1.jpg"],
        {"train": {"cat": 1, "cup": 1}, "val": {"cat": 1}},
    ),
}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("tree", TREES)
def test_folders_are_taken_for_what_they_are(tree: str, kind: str, tmp_path: Path) -> None:
    names, wanted = TREES[tree]
    source = tmp_path / f"source.{kind}"
    if kind == "folder":
        write(source, names)
    elif kind == "zip":
        with zipfile.ZipFile(source, "w") as packed:
            for name in names:
                packed.writestr(name, SMALL)
    else:
        with tarfile.open(source, "w") as archive:
            for name in names:
                add_bytes(archive, name, SMALL)
    assert found_in(source, tmp_path) == wanted


def test_what_is_left_out_is_said_with_its_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, [*numbered("train/cat", 1), *numbered("train/cup", 1), *numbered("val/cup", 1)])
    write(root, [*numbered("test", 3), *numbered("extra/cat", 2)])
    with caplog.at_level(logging.WARNING):
        open_source(str(root), "train", 32)
    assert "data: 3 pictures in `test` are left out: it has no classes" in caplog.messages
    assert "data: 2 pictures in `extra` are left out: beside `train` and `val`" in caplog.messages
    assert list_pictures(str(root), tmp_path / "spool").unclassed == 5


def test_splits_without_a_class_in_common_are_refused(tmp_path: Path) -> None:
    write(
        tmp_path, [*numbered("train/cat", 1), *numbered("train/cup", 1), *numbered("test/a", 1), *numbered("test/b", 1)]
    )
    with pytest.raises(DataError, match="`train` and `test` hold no class in common"):
        list_pictures(str(tmp_path), tmp_path)


def test_pictures_in_splits_without_classes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [*numbered("train", 2), *numbered("val", 1)])
    with pytest.raises(DataError, match=r"3 pictures without a class, e\.g\. train/0\.jpg"):
        list_pictures(str(tmp_path), tmp_path)


def test_a_lone_train_folder_with_folders_beside_others_is_said(tmp_path: Path) -> None:
    write(tmp_path, [*numbered("train/cat", 1), *numbered("train/cup", 1), *numbered("docs", 1)])
    notes = list_pictures(str(tmp_path), tmp_path).notes
    assert any("`train` is taken for a class: no val or test stands beside it" in note for note in notes)


def test_classes_that_hold_the_same_folders_are_doubted(tmp_path: Path) -> None:
    parts = [f"{part}/{name}/0.jpg" for part in ("images", "masks", "edges") for name in ("cat", "cup", "dog")]
    notes = list_pictures(str(write(tmp_path / "parts", parts)), tmp_path).notes
    assert notes[0].startswith(
        "the 3 classes (`edges`, `images`, `masks`) all hold the same folders (`cat`, `cup`, `dog`)"
    )
    nested = [f"{name}/images/{number}.jpg" for name in ("cat", "cup") for number in range(2)]
    assert list_pictures(str(write(tmp_path / "nested", nested)), tmp_path).notes == []


def test_folders_of_a_thousand_pictures_are_doubted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cut.zip", "w") as archive:
        for number in range(2100):
            archive.writestr(f"{number // 1000 * 1000:05d}/{number:05d}.png", b"")
    notes = list_pictures(str(tmp_path / "cut.zip"), tmp_path).notes
    assert notes[0].startswith("the folders `00000`, `01000`, `02000` hold 1,000 pictures each")
    with zipfile.ZipFile(tmp_path / "digits.zip", "w") as archive:
        for number in range(2200):
            archive.writestr(f"{number % 2}/{number:05d}.png", b"")
    assert list_pictures(str(tmp_path / "digits.zip"), tmp_path).notes == []


IN_UTF_8, IN_GBK = ["k\u00e4se", "na\u00efve", "\u732b"], ["\u676f\u5b50", "\u732b", "\u56fe\u7247"]


@pytest.mark.parametrize(
    ("kind", "encoding", "classes"),
    [
        *((kind, "utf-8", IN_UTF_8) for kind in ("zip", "tar", "folder")),
        *((kind, "gbk", IN_GBK) for kind in ("zip", "tar", "folder")),
        ("zip", "cp437", ["caf\u00e9", "k\u00e4se", "na\u00efve"]),
    ],
)
def test_names_are_read_in_their_encoding(kind: str, encoding: str, classes: list[str], tmp_path: Path) -> None:
    written = [unicodedata.normalize("NFD", name) if encoding == "utf-8" else name for name in classes]
    names = [f"{name}/{number}.jpg".encode(encoding) for name in written for number in range(2)]
    source = tmp_path / f"source.{kind}"
    if kind == "folder":
        write(source, [name.decode("utf-8", "surrogateescape") for name in names])
    elif kind == "tar":
        with tarfile.open(source, "w") as archive:
            for name in names:
                add_bytes(archive, name.decode("utf-8", "surrogateescape"), SMALL)
    else:
        with zipfile.ZipFile(source, "w") as packed:
            for number in range(len(names)):
                packed.writestr(chr(ord("A") + number) * len(names[number]), SMALL)
        data = source.read_bytes()
        for number, name in enumerate(names):  # zipfile itself writes nothing but ASCII and marked UTF-8
            data = data.replace(bytes([ord("A") + number]) * len(name), name)
        source.write_bytes(data)
    assert list_pictures(str(source), tmp_path).class_names == sorted(classes)
    assert len(open_source(str(source), "train", 32).read(np.arange(6))) == 6


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    source = tmp_path / "source.zip"
    for name in ("first", "second"):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as packed:
            for number in range(4):
                packed.writestr(f"{name} {number % 2}/{number}.jpg", SMALL)
        (tmp_path / "new.zip").replace(source)
        assert len(open_source(str(source), "train", 32).read(np.arange(4))) == 4


def test_keys_of_shards_may_have_dots(tmp_path: Path) -> None:
    keys = {"img_0.5_a": 3, "img_0.7_a": 10, "v1.0/img.2": 3, "plain": 2}
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for key, label in keys.items():
            add_bytes(archive, f"{key}.jpg", SMALL)
            add_bytes(archive, f"{key}.cls", str(label).encode())
        add_bytes(archive, "plain.left.png", SMALL)  # a second picture of the sample `plain`
    listing = list_pictures(str(tmp_path / "shard.tar"), tmp_path)
    classes = {picture.key: int(listing.class_names[picture.label]) for picture in listing.pictures["train"]}
    assert classes == {f"{key}.jpg": label for key, label in keys.items()} | {"plain.left.png": 2}
    assert (listing.unclassed, listing.unread) == (0, {})


def test_numbers_sort_as_numbers_and_names_as_names(tmp_path: Path) -> None:
    write(tmp_path / "numbers", [f"{number}/0.jpg" for number in range(12)])
    assert list_pictures(str(tmp_path / "numbers"), tmp_path).class_names == [str(number) for number in range(12)]
    write(tmp_path / "names", [f"{name}/0.jpg" for name in ("10", "9", "c10", "c9")])
    assert list_pictures(str(tmp_path / "names"), tmp_path).class_names == ["10", "9", "c10", "c9"]


def test_a_folder_of_a_data_sets_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "photos", [*numbered("cat", 1), *numbered("cup", 1)])
    monkeypatch.chdir(tmp_path)
    assert len(open_source("photos", "train", 32).class_names) == 12
    assert "`photos` is the data set of that name, not the file or folder here: for that, write ./photos" in caplog.text
    caplog.clear()
    assert open_source("./photos", "train", 32).class_names == ["cat", "cup"]
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_tiny_imagenet_as_it_is_unpacked(kind: str, tmp_path: Path) -> None:
    synsets = ("n01443537", "n01629819", "n01641577")
    files = {f"tiny/train/{s}/images/{s}_{n}.JPEG": SMALL for s in synsets for n in range(3)}
    files |= {f"tiny/train/{s}/{s}_boxes.txt": b"x.JPEG\t0\t0\t9\t9\n" for s in synsets}
    files |= {f"tiny/val/images/val_{n}.JPEG": SMALL for n in range(5)} | {"tiny/test/images/test_0.JPEG": SMALL}
    lines = "".join(f"val_{n}.JPEG\t{synsets[n % 3]}\t0\t32\t44\t62\n" for n in range(5))
    files |= {"tiny/val/val_annotations.txt": lines.encode(), "tiny/words.txt": b"n01443537\tgoldfish\n"}
    source = tmp_path / f"tiny-imagenet.{kind}"
    if kind == "folder":
        write(source, files)
    else:
        zipfile.ZipFile(source, "w").close()
    for name, data in files.items():
        if kind == "folder":
            (source / name).write_bytes(data)
        else:
            with zipfile.ZipFile(source, "a") as archive:
                archive.writestr(name, data)
    listing = list_pictures(str(source), tmp_path)
    assert counts(listing) == {
        "train": dict.fromkeys(synsets, 3),
        "val": {"n01443537": 2, "n01629819": 2, "n01641577": 1},
    }
    assert listing.notes[1:] == ["1 pictures in `tiny/test` are left out: it has no classes"]
    assert listing.left_out == []


def write_nvidia(path: Path, labels: object, count: int = 6) -> Path:
    """Write a zip as NVIDIA's dataset_tool.py does."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number // 3:05d}/img{number:08d}.png", SMALL)
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def test_nvidias_zip_has_its_classes_in_dataset_json(tmp_path: Path) -> None:
    labels = [[f"{number // 3:05d}/img{number:08d}.png", number % 2 * 10] for number in range(6)]
    assert found_in(write_nvidia(tmp_path / "a.zip", labels), tmp_path) == {"train": {"0": 3, "10": 3}}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert found_in(tmp_path / "unpacked", tmp_path) == {"train": {"0": 3, "10": 3}}
    with pytest.raises(DataError, match=r"dataset\.json says that its pictures have no classes"):
        list_pictures(str(write_nvidia(tmp_path / "null.zip", None)), tmp_path)
    with pytest.raises(
        DataError, match=r"2 of 6 pictures of .*part\.zip have no line, e\.g\. `00001/img00000004\.png`"
    ):
        list_pictures(str(write_nvidia(tmp_path / "part.zip", labels[:4])), tmp_path)
