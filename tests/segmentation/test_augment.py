"""Check sizes, crops, colours and padding of training samples, and that each is a function of its position."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from hamgan.data.photos import photo_folder
from hamgan.segmentation.augment import augment, draw_crop, random_at, resize, resize_labels, saturate, scaled_size
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.data.source import IGNORED, Sample
from hamgan.segmentation.schema import AugmentConfig

PLAIN = AugmentConfig(scale=[1.0, 1.0], flip=0.0, photometric=False, max_class_share=1.0)


def photo(height: int, width: int) -> np.ndarray:
    """Return a photograph uint8 [height, width, 3]."""
    return np.array(Image.open(photo_folder() / "chelsea.png").convert("RGB").resize((width, height)))


def sample(height: int, width: int) -> Sample:
    """Return a photograph and labels that count 0 to 6 along its diagonals."""
    image = photo(height, width)
    rows, columns = np.mgrid[:height, :width]
    return Sample(image, ((rows + columns) // 40 % 7).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((683, 512), 1.0, (683, 512)),
        ((300, 400), 0.75, (384, 512)),
        ((100, 1000), 1.0, (205, 2048)),
        ((7, 5), 1.0, (717, 512)),
    ],
)
def test_sizes_follow_the_box_in_proportion_and_are_rounded(
    size: tuple[int, int], ratio: float, expected: tuple[int, int]
) -> None:
    assert scaled_size(size, 512, 2048, ratio) == expected


def test_without_a_short_side_the_ratio_alone_scales() -> None:
    assert scaled_size((33, 47), None, 2048, 1.5) == (50, 71)


def test_images_are_resized_as_opencv_does_without_filtering() -> None:
    """Compare with bilinear weights written out, where pixels are squares and borders repeat."""
    image = torch.randint(0, 256, (1, 13, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    places = [np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1) for old, new in ((13, 6), (9, 20))]
    rows, columns = (
        np.maximum(0, 1 - abs(place[:, None] - np.arange(old))) for place, old in zip(places, (13, 9), strict=True)
    )
    expected = rows @ image[0].numpy().astype(float) @ columns.T
    assert np.abs(resize(image, (6, 20))[0].numpy() - expected).max() <= 1


def test_labels_are_never_interpolated() -> None:
    labels = torch.tensor([[0, 150, IGNORED]], dtype=torch.uint8).repeat(3, 1)[None]
    assert set(resize_labels(labels, (17, 23)).unique().tolist()) == {0, 150, IGNORED}


def test_what_is_smaller_than_the_crop_is_padded_right_and_below() -> None:
    made = augment(sample(60, 90), dataclasses.replace(PLAIN, crop=96, short_side=60), random_at(0, 0, 0))
    assert made.size == (60, 90)
    assert made.image.shape == (3, 96, 96)
    inside = torch.zeros(96, 96, dtype=torch.bool)
    inside[:60, :90] = True
    assert (made.labels[~inside] == IGNORED).all()
    assert (made.labels[inside] != IGNORED).all()
    assert not made.image[:, ~inside].any()
    assert torch.equal(made.image[:, :60, :90], torch.from_numpy(sample(60, 90).image.copy()).permute(2, 0, 1))


def test_a_flip_mirrors_image_and_labels_together() -> None:
    plain = augment(sample(64, 64), dataclasses.replace(PLAIN, crop=64, short_side=64), random_at(0, 0, 0))
    mirrored = augment(sample(64, 64), dataclasses.replace(PLAIN, crop=64, short_side=64, flip=1.0), random_at(0, 0, 0))
    assert torch.equal(mirrored.image, plain.image.flip(2))
    assert torch.equal(mirrored.labels, plain.labels.flip(1))


def test_crops_of_one_class_are_drawn_again() -> None:
    """Look for a corner with another class: a crop has it with probability 1/16, eleven draws with a half."""
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[40:, 40:] = 1

    def has_both(share: float, position: int) -> bool:
        top, left = draw_crop(labels, 32, share, random_at(0, 0, position))
        return len(labels[top : top + 32, left : left + 32].unique()) == 2

    any_crop, chosen = (sum(has_both(share, position) for position in range(200)) for share in (1.0, 0.75))
    assert chosen > 1.3 * any_crop


def test_ignored_pixels_count_for_no_class_share() -> None:
    labels = torch.full((64, 64), IGNORED, dtype=torch.uint8)
    labels[:, ::2] = 1  # one class and ignored pixels: each crop is refused, and the eleventh taken
    state = random_at(0, 0, 0)
    draw_crop(labels, 32, 0.75, state)
    reference = random_at(0, 0, 0)
    for _ in range(11):
        reference.randint(33), reference.randint(33)
    assert state.randint(1 << 30) == reference.randint(1 << 30)


def test_saturation_is_that_of_hsv() -> None:
    image = torch.from_numpy(photo(30, 40)).permute(2, 0, 1).float()
    hsv = np.asarray(Image.fromarray(photo(30, 40)).convert("HSV")).astype(float)
    for factor in (0.5, 1.5):
        found = Image.fromarray(saturate(image, factor).round().byte().permute(1, 2, 0).numpy()).convert("HSV")
        expected = np.minimum(hsv[..., 1] * factor, 255)
        assert np.abs(np.asarray(found).astype(float)[..., 1] - expected).mean() < 2
        assert np.abs(np.asarray(found).astype(float)[..., 2] - hsv[..., 2]).max() <= 1


def test_colours_change_and_labels_do_not() -> None:
    config = dataclasses.replace(PLAIN, crop=64, short_side=64)
    plain = augment(sample(64, 64), config, random_at(0, 0, 0))
    distorted = [
        augment(sample(64, 64), dataclasses.replace(config, photometric=True), random_at(0, 0, p)) for p in range(8)
    ]
    assert all(torch.equal(made.labels, plain.labels) for made in distorted)
    assert len({made.image.float().mean().item() for made in distorted}) > 5


def test_a_sample_is_a_function_of_seed_stream_and_position() -> None:
    source, config = MosaicSource("train"), AugmentConfig(short_side=128, crop=96)
    first, same = (augment(source.read(3), config, random_at(5, 1, 2**33 + 7)) for _ in range(2))
    assert torch.equal(first.image, same.image)
    assert torch.equal(first.labels, same.labels)
    for other in ((6, 1, 2**33 + 7), (5, 2, 2**33 + 7), (5, 1, 7)):
        assert not torch.equal(augment(source.read(3), config, random_at(*other)).image, first.image)
