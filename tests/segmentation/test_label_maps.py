"""Check that label maps of every kind mean what their class file says, and that nothing of it is passed over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from support.lands import needs_land

from hamgan.errors import DataError
from hamgan.segmentation.data.opening import open_source
from hamgan.segmentation.predict import read_picture
from hamgan.segmentation.schema import DataConfig

LAND_COVER = [
    {"name": "water", "color": [0, 0, 255]},
    {"name": "forest", "color": [0, 255, 0]},
    {"name": "barren", "color": [255, 255, 255]},
]
"""Colours of DeepGlobe, whose barren land is white and whose unknown is black."""
HALF = np.repeat(np.asarray([0, 1], np.uint8), 4)[:, None].repeat(8, 1)
"""Rows of zeros above rows of ones."""


def make_folder(root: Path, labels: Any, classes: Any, ending: str = ".png") -> Path:
    """Write five pictures with the same label map: without splits, one of them is held out."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(root / f"images/{number}.png")
        Image.fromarray(labels).save(root / f"masks/{number}{ending}")
    (root / "classes.yaml").write_text(yaml.safe_dump(classes))
    return root


def first_labels(root: Path, **data: Any) -> list[int]:
    """Return the labels of the first picture's first and last row."""
    labels = open_source(DataConfig(source=str(root), **data)).read(0).labels
    return [int(labels[0, 0]), int(labels[-1, 0])]


def test_a_map_in_colours_is_one_also_where_all_of_its_colours_are_grey(tmp_path: Path) -> None:
    channels = (255 * HALF)[..., None].repeat(3, 2)
    assert first_labels(make_folder(tmp_path, channels, LAND_COVER)) == [255, 2]


def test_three_channels_that_are_alike_are_values_where_classes_have_no_colours(tmp_path: Path) -> None:
    assert first_labels(make_folder(tmp_path, HALF[..., None].repeat(3, 2), ["sea", "land"])) == [0, 1]


def test_colours_that_no_class_names_are_refused(tmp_path: Path) -> None:
    """Refuse maps in the colours of PASCAL VOC, of which ours for pictures are the next one for every class."""
    channels = HALF[..., None] * np.asarray([128, 0, 0], np.uint8)
    root = make_folder(tmp_path / "names", channels, ["background", "aeroplane"])
    with pytest.raises(DataError, match="is a colour picture; give every class its colour in the file of classes"):
        first_labels(root)
    twice = [{"name": name, "color": [128, 0, 0]} for name in ("sea", "land")]
    with pytest.raises(DataError, match="gives a colour to several classes"):
        first_labels(make_folder(tmp_path / "twice", channels, twice))


@pytest.mark.parametrize("values", [HALF.astype(np.float32), -HALF.astype(np.int32)])
def test_values_of_pictures_are_whole_numbers_from_0_on(tmp_path: Path, values: np.ndarray) -> None:
    root = make_folder(tmp_path, values, ["sea", "land"], ".tif")
    with pytest.raises(DataError, match=r"0\.tif must hold whole numbers \[height, width\], from 0 on"):
        first_labels(root)


def test_what_is_to_be_ignored_is_ignored_or_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "list", HALF, ["sea", "land"])
    with pytest.raises(DataError, match=r"data\.ignore_label 0: the value 0 is the class `sea` of .*classes\.yaml"):
        first_labels(root, ignore_label=0)
    rest = make_folder(tmp_path / "rest", HALF, [{"name": "land", "values": [1]}, {"name": "ice", "values": [2]}])
    assert first_labels(rest, ignore_label=0) == [255, 0]
    assert first_labels(rest, reduce_zero_label=True) == [255, 0]
    binary = [{"name": "sea", "value": 0}, {"name": "land", "value": 255}]
    assert first_labels(make_folder(tmp_path / "binary", 255 * HALF, binary)) == [0, 1]


def test_what_is_to_be_ignored_of_a_public_data_set_is_refused_where_it_is_a_class(tmp_path: Path) -> None:
    make_folder(tmp_path, HALF, ["sea", "land"])
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    for path in (tmp_path / "JPEGImages").iterdir():
        path.rename(path.with_suffix(".jpg"))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("0\n1\n")
    assert first_labels(tmp_path) == [0, 1]
    with pytest.raises(DataError, match=r"data\.reduce_zero_label: the value 0 is the class `background` of voc"):
        first_labels(tmp_path, reduce_zero_label=True)


def test_label_maps_as_jpeg_are_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path, HALF, ["sea", "land"], ".jpg")
    with pytest.raises(DataError, match=r"masks holds no label maps .*; a JPEG changes values, so it is none"):
        first_labels(root)


def test_pairs_without_splits_have_two_splits_and_no_other(tmp_path: Path) -> None:
    root = make_folder(tmp_path, HALF, ["sea", "land"])
    with pytest.raises(DataError, match="has no split `test`: of its pairs every fifth is val"):
        open_source(DataConfig(source=str(root)), "test")


@pytest.mark.parametrize("source", ["mosaic", pytest.param("land", marks=needs_land)])
def test_data_sets_have_two_splits_and_no_other(source: str) -> None:
    with pytest.raises(DataError, match="unknown split `test`; allowed: train, val"):
        open_source(DataConfig(source=source), "test")


@pytest.mark.parametrize("given", [{"classes": "classes.yaml"}, {"layout": "voc"}])
def test_options_of_folders_are_refused_for_other_data(given: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="is for folders; mosaic has classes of its own"):
        open_source(DataConfig(source="mosaic", **given))


def test_deep_grey_pictures_keep_their_levels(tmp_path: Path) -> None:
    root = make_folder(tmp_path, HALF, ["sea", "land"])
    levels = np.linspace(0, 65535, 64).reshape(8, 8)
    path = root / "images/0.png"
    Image.fromarray(levels.astype(np.uint16)).save(path)
    expected = (levels / 257).round()
    assert np.abs(open_source(DataConfig(source=str(root))).read(0).image[..., 0] - expected).max() <= 1
    assert np.abs(read_picture(path)[..., 1] - expected).max() <= 1
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nothing.tif")
    with pytest.raises(DataError, match=r"nothing\.tif has pixels that are not finite"):
        read_picture(tmp_path / "nothing.tif")


def test_a_damaged_orientation_does_not_cost_the_picture(tmp_path: Path) -> None:
    root = make_folder(tmp_path, HALF, ["sea", "land"])
    # An orientation, tag 0x0112, that is the text "ab" and no number.
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0ab\0\0"
    Image.new("RGB", (8, 8)).save(root / "images/0.png", exif=damaged)
    assert first_labels(root) == [0, 1]
