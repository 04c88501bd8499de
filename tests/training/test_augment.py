"""Test DiffAugment: parameters drawn apart, each transformation against NumPy, and gradients to the images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hamgan.data import open_source
from hamgan.training.augment import augment, draw_augmentation


def photographs(count: int = 4) -> Tensor:
    """Return crops of photographs [B, 3, 32, 32] in [-1, 1]."""
    pixels = open_source("photos", "train", 32).read(np.arange(count))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1


def draw(policy: list[str], count: int = 4, seed: int = 0) -> dict[str, Tensor]:
    return draw_augmentation(policy, count, torch.Generator().manual_seed(seed))


def test_parameters_have_their_shapes_and_range() -> None:
    parameters = draw(["cutout", "color", "translation", "flip", "shift"], 500)
    assert {name: tuple(value.shape) for name, value in parameters.items()} == {
        "cutout": (500, 2),
        "color": (500, 3),
        "translation": (500, 2),
        "flip": (500, 1),
        "shift": (500, 2),
    }
    for value in parameters.values():
        assert value.min() >= 0
        assert value.max() < 1
        assert value.mean().item() == pytest.approx(0.5, abs=0.05)


def test_without_a_policy_images_pass_unchanged() -> None:
    images = photographs()
    assert augment(images, draw([])) is images


def test_colour_changes_brightness_then_saturation_then_contrast() -> None:
    images, parameters = photographs(), draw(["color"])
    result = augment(images, parameters)
    for image, changed, (brightness, saturation, contrast) in zip(
        images.numpy(), result.numpy(), parameters["color"].double().numpy(), strict=True
    ):
        expected = image + (brightness - 0.5)
        grey = expected.mean(axis=0)
        expected = (expected - grey) * (2 * saturation) + grey
        expected = (expected - expected.mean()) * (contrast + 0.5) + expected.mean()
        np.testing.assert_allclose(changed, expected, atol=1e-12)


def test_translation_shifts_by_whole_pixels_and_fills_with_zero() -> None:
    images = photographs(9)
    # Uniform numbers at the middle of the nine steps of -4 .. 4 pixels (an eighth of 32).
    steps = (torch.arange(9) + 0.5) / 9
    result = augment(images, {"translation": torch.stack([steps, steps.flip(0)], dim=1)})
    for shift, image, moved in zip(range(-4, 5), images.numpy(), result.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
        np.testing.assert_array_equal(moved, padded[:, 4 + shift : 36 + shift, 4 - shift : 36 - shift])


def test_cutout_blanks_a_square_of_half_the_side_that_may_hang_over_the_edge() -> None:
    images = torch.ones(3, 3, 32, 32)
    # Centres 0, 16 and 32 of the 33 positions, for rows and columns.
    uniform = torch.tensor([[0.0, 0.0], [16.5 / 33, 16.5 / 33], [32.5 / 33, 0.0]])
    result = augment(images, {"cutout": uniform})
    for image, (rows, columns) in zip(result, [((0, 8), (0, 8)), ((8, 24), (8, 24)), ((24, 32), (0, 8))], strict=True):
        expected = torch.ones(32, 32)
        expected[slice(*rows), slice(*columns)] = 0
        assert torch.equal(image, expected.expand(3, 32, 32))


def test_flip_mirrors_half_of_the_images() -> None:
    images = photographs(2)
    flipped, kept = augment(images, {"flip": torch.tensor([[0.49], [0.5]])})
    assert torch.equal(flipped, images[0].flip(2))
    assert torch.equal(kept, images[1])


@pytest.mark.parametrize("size", [32, 64])
def test_shift_moves_by_up_to_four_pixels_whatever_the_size_and_mirrors_the_border(size: int) -> None:
    images = torch.arange(9 * 3 * size * size).view(9, 3, size, size).double()
    steps = (torch.arange(9) + 0.5) / 9
    result = augment(images, {"shift": torch.stack([steps, steps.flip(0)], dim=1)})
    for shift, image, moved in zip(range(-4, 5), images.numpy(), result.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
        np.testing.assert_array_equal(moved, padded[:, 4 + shift : 4 + size + shift, 4 - shift : 4 + size - shift])


def test_an_image_is_changed_by_its_own_parameters_only() -> None:
    images, parameters = photographs(), draw(["color", "translation", "cutout"])
    together = augment(images, parameters)
    for index in range(4):
        alone = augment(
            images[index : index + 1], {name: value[index : index + 1] for name, value in parameters.items()}
        )
        assert torch.allclose(alone[0], together[index], atol=1e-12)


def test_gradients_reach_the_images() -> None:
    images, parameters = (
        photographs(2)[:, :, :8, :8].clone().requires_grad_(),
        draw(["color", "translation", "cutout"], 2),
    )
    assert torch.autograd.gradcheck(lambda x: augment(x, parameters), (images,), fast_mode=True)
    assert augment(images.float().contiguous(memory_format=torch.channels_last), parameters).dtype == torch.float32
