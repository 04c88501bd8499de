"""Check that the embedded photographs share no pixel between splits, and that crops depend on the index alone."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from hamgan.data import check_source, class_histogram, open_source
from hamgan.data.photos import PHOTOS, SCALES, Photo, PhotoSource, _read_strips, photo_folder, strip_boxes
from hamgan.errors import DataError


def test_at_least_twelve_classes_of_equal_size() -> None:
    source = open_source("photos", "train", 32)
    assert len(source.class_names) >= 12
    assert set(class_histogram(source)) == {10_000}
    assert len(open_source("photos", "val", 32)) == 1_000 * len(source.class_names)
    check_source(source)


@pytest.mark.parametrize("name", PHOTOS)
def test_no_pixel_is_in_both_splits(name: str) -> None:
    photo = PHOTOS[name]
    used = {}
    for split in ("train", "val"):
        mask = np.zeros((2000, 2000), bool)
        for left, upper, right, lower in strip_boxes(photo, 512, 400, split):
            mask[upper:lower, left:right] = True
        used[split] = mask
    assert used["train"].any()
    assert used["val"].any()
    assert not (used["train"] & used["val"]).any()


def test_changing_held_out_pixels_leaves_every_train_crop_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.arange(600)
    before = open_source("photos", "train", 32).read(indices)

    def with_inverted_other_split(photo: Photo, split: str) -> list[Image.Image]:
        image = Image.open(photo_folder() / photo.file).convert("RGB")
        for box in strip_boxes(photo, *image.size, "val"):
            image.paste(ImageOps.invert(image.crop(box)), box)
        return [image.crop(box) for box in strip_boxes(photo, *image.size, split)]

    monkeypatch.setattr("hamgan.data.photos._read_strips", with_inverted_other_split)
    assert np.array_equal(open_source("photos", "train", 32).read(indices), before)
    assert not np.array_equal(open_source("photos", "val", 32).read(indices), before)


def test_a_crop_is_a_function_of_split_class_and_index() -> None:
    source, again = open_source("photos", "train", 32), PhotoSource("train", 32)
    indices = np.array([0, 7, 149_999, 7, 31])
    images = source.read(indices)
    assert images.shape == (5, 32, 32, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, again.read(indices))
    assert np.array_equal(images[1], images[3])
    for row, index in enumerate(indices):
        assert np.array_equal(source.read(np.array([index]))[0], images[row])
    assert source.describe() == again.describe()
    assert source.describe()["sha256"] != open_source("photos", "val", 32).describe()["sha256"]


def test_crops_of_a_class_differ() -> None:
    source = open_source("photos", "train", 32)
    per_class = len(source.class_names)
    for label in range(per_class):
        images = source.read(label + per_class * np.arange(40)).reshape(40, -1).astype(float)
        gaps = [np.abs(a - b).mean() for a, b in itertools.combinations(images, 2)]
        assert np.median(gaps) > 4, source.class_names[label]


@pytest.mark.parametrize("resolution", [48, 128, 512])
def test_an_index_shows_the_same_content_at_every_resolution(resolution: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two classes are enough, and keep 512 px small.
    few = {name: PHOTOS[name] for name in ("coffee", "rocket")}
    monkeypatch.setattr("hamgan.data.photos.PHOTOS", few)
    small, large = open_source("photos", "val", 32), open_source("photos", "val", resolution)
    indices = np.arange(20)
    averages = [source.read(indices).mean((1, 2)) for source in (small, large)]
    assert np.abs(averages[0] - averages[1]).max() < 12
    assert large.read(indices).shape == (20, resolution, resolution, 3)


def test_every_strip_holds_a_crop_of_at_least_forty_source_pixels() -> None:
    for name, photo in PHOTOS.items():
        strips = _read_strips(photo, "train") + _read_strips(photo, "val")
        assert min(min(strip.size) for strip in strips) * SCALES[-1] >= 36, name


def test_read_writes_into_the_given_array() -> None:
    source = open_source("photos", "val", 32)
    out = np.zeros((3, 32, 32, 3), np.uint8)
    assert source.read(np.arange(3), out) is out
    assert np.array_equal(out, source.read(np.arange(3)))


@pytest.mark.parametrize(
    ("source", "split", "resolution", "message"),
    [
        ("photos", "test", 32, "unknown split `test`; allowed: train, val"),
        ("photos", "train", 1024, "photos at 1024 px are not available; allowed: 8 to 512"),
        ("photo", "train", 32, "did you mean `photos`?"),
        ("/no/such/place", "train", 32, "no data source `/no/such/place`"),
    ],
)
def test_wrong_requests_get_a_sentence(source: str, split: str, resolution: int, message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(source, split, resolution)
    assert message in str(caught.value)
