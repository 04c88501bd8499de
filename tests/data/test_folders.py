"""Test folders of class folders in the forms that users have."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hamgan.data import check_source, class_histogram, open_source
from hamgan.data.photos import photo_folder
from hamgan.errors import DataError


def photo(name: str, size: tuple[int, int] = (90, 60)) -> Image.Image:
    return Image.open(photo_folder() / name).convert("RGB").resize(size)


def make_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            photo("chelsea.png" if name == "cat" else "coffee.png").rotate(10 * i).save(root / name / f"{i}.png")
    return root


def test_classes_are_sorted_folders_and_nested_pictures_count(tmp_path: Path) -> None:
    make_classes(tmp_path, {"b dog é": 2, "a": 1, ".hidden": 3, "__MACOSX": 1})
    (tmp_path / "a" / "deep" / "er").mkdir(parents=True)
    photo("rocket.jpg").save(tmp_path / "a" / "deep" / "er" / "X.JPEG")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / "a" / "._0.png").write_bytes(b"finder")
    (tmp_path / "stray.jpg").write_bytes(b"at the top")
    source = open_source(str(tmp_path), "train", 32)
    assert source.class_names == ["a", "b dog é"]
    assert class_histogram(source).tolist() == [2, 2]
    assert source.read(np.arange(4)).shape == (4, 32, 32, 3)
    check_source(source)


def test_train_and_val_folders_share_their_classes(tmp_path: Path) -> None:
    make_classes(tmp_path / "Train", {"cat": 3, "cup": 2, "none": 1})
    make_classes(tmp_path / "validation", {"cup": 2, "cat": 1})
    assert class_histogram(open_source(str(tmp_path), "train", 32)).tolist() == [3, 2, 1]
    val = open_source(str(tmp_path), "val", 32)
    assert val.class_names == ["cat", "cup", "none"]
    assert val.labels.tolist() == [0, 1, 1]


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make_classes(tmp_path / "store", {"cat": 2})
    root = make_classes(tmp_path / "data", {"cup": 1})
    (root / "cat").symlink_to(tmp_path / "store" / "cat")
    (root / "cup" / "again").symlink_to(root / "cup")
    (root / "cup" / "linked.png").symlink_to(tmp_path / "store" / "cat" / "0.png")
    assert class_histogram(open_source(str(root), "train", 32)).tolist() == [2, 2]


def test_links_that_lead_nowhere_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_classes(tmp_path / "data", {"cat": 1, "cup": 2})
    (root / "cup" / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "cup" / "itself.png").symlink_to("itself.png")
    (root / "cup" / "folder").symlink_to("folder")
    source = open_source(str(root), "train", 32)
    assert class_histogram(source).tolist() == [1, 4]
    with caplog.at_level(logging.WARNING):
        images = source.read(np.arange(5))
    assert np.array_equal(images[3], images[1])
    named = [record.message for record in caplog.records if "is a symbolic link that leads nowhere" in record.message]
    assert len(named) == 2
    assert "cup/gone.png" in min(named)


def test_a_class_of_broken_pictures_is_refused_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_classes(tmp_path, {"cat": 2, "cup": 2})
    for broken in (root / "cup").iterdir():
        broken.write_bytes(b"")
    message = r"no picture of class `cup` in .* can be used \(cup/0.png is empty \(0 bytes\)\); remove or fill"
    with pytest.raises(DataError, match=message):
        open_source(str(root), "train", 32)
    assert caplog.records == []


def test_a_broken_picture_gives_its_place_to_the_next_of_its_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_classes(tmp_path, {"cat": 3, "cup": 1})
    broken = root / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])
    source = open_source(str(root), "train", 32)
    with caplog.at_level(logging.WARNING):
        images = source.read(np.array([1, 2, 1]))
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
    assert [record.message for record in caplog.records if str(broken) in record.message][1:] == []


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds no pictures; put each class's pictures in a folder"),
        ({"cat": 3}, "one class only: all 3 images are `cat`"),
        ({"cat": 2, "cup": 1, "void": 0}, "1 of 3 classes have no images (`void`)"),
        ({"void": 0, "nil": 0}, "holds no pictures"),
    ],
)
def test_folders_that_cannot_train_get_a_sentence(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    make_classes(tmp_path, counts)
    with pytest.raises(DataError) as caught:
        check_source(open_source(str(tmp_path), "train", 32))
    assert message in str(caught.value)


def test_a_missing_split_gets_a_sentence(tmp_path: Path) -> None:
    make_classes(tmp_path, {"cat": 2, "cup": 1})
    with pytest.raises(DataError, match="has no split `val`"):
        open_source(str(tmp_path), "val", 32)
