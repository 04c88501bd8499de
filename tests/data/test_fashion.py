"""Check the embedded photographs of articles: what they show, that no article is in both splits, that nothing moved."""

import numpy as np
import pytest

from hamgan.data import check_source, class_histogram, open_source
from hamgan.errors import DataError

# Recorded when the images were cut from the files in Debian's package dataset-fashion-mnist and inverted.
SHA256 = {
    "train": "a845172a6535871a213dce77cabb035e3c6b00a804ae981f9af292506577cfd7",
    "val": "ef427098dd2184ddd07ae8ffc0238e4221f21093c1b5d3935848d5b8cdb5476f",
}


@pytest.mark.parametrize(("split", "count"), [("train", 1200), ("val", 120)])
def test_nine_classes_of_equal_size_with_the_published_pixels(split: str, count: int) -> None:
    source = open_source("fashion", split, 32)
    assert len(source) == 9 * count
    assert class_histogram(source).tolist() == [count] * 9
    assert source.describe()["sha256"] == SHA256[split]
    check_source(source)


def test_articles_are_dark_on_white_framed_and_grey() -> None:
    images = open_source("fashion", "val", 32).read(np.arange(1080))
    assert images.shape == (1080, 32, 32, 3)
    assert images.dtype == np.uint8
    assert (images == images[..., :1]).all()
    assert (images[:, [0, 1, 30, 31]] == 255).all()
    assert (images[:, :, [0, 1, 30, 31]] == 255).all()
    assert images[:, 12:20, 12:20].mean() < 180


def test_labels_are_those_of_what_the_images_show() -> None:
    """Trousers are tall and narrow with a gap between the legs at the bottom; shoes are wide and low."""
    source = open_source("fashion", "val", 32)
    images = 255 - source.read(np.arange(1080))[..., 0].astype(float)
    mass = np.stack([images[source.labels == label].mean(0) for label in range(9)])
    height, width = (mass.sum(axis) for axis in (2, 1))
    flatness = dict(zip(source.class_names, (width > 200).sum(1) - (height > 200).sum(1), strict=True))
    assert min(flatness[name] for name in ("sandal", "sneaker", "ankle boot")) > 0
    assert max(flatness[name] for name in ("trousers", "dress")) < -4
    trousers = mass[source.class_names.index("trousers")]
    assert trousers[24, 16] < 0.7 * max(trousers[24, 12], trousers[24, 19])


def test_no_article_is_in_both_splits_and_none_twice() -> None:
    splits = {split: open_source("fashion", split, 32) for split in ("train", "val")}
    found = {split: {image.tobytes() for image in one.read(np.arange(len(one)))} for split, one in splits.items()}
    assert not found["train"] & found["val"]
    assert len(found["val"]) == 1080


def test_read_depends_on_the_index_alone_and_writes_where_it_is_told() -> None:
    source = open_source("fashion", "train", 32)
    indices = np.array([5, 10_799, 5])
    out = np.zeros((3, 32, 32, 3), np.uint8)
    assert source.read(indices, out) is out
    assert np.array_equal(out[0], out[2])
    assert np.array_equal(out[1], source.read(np.array([10_799]))[0])


def test_another_resolution_gets_a_sentence() -> None:
    with pytest.raises(DataError, match="fashion at 64 px is not available; it has 32 px"):
        open_source("fashion", "train", 64)
