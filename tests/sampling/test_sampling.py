"""Test the way from seeds and classes to images: reproducible images, refusals, written files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from support.small_runs import small_config

from hamgan.checkpoint import load_generator_file, save_generator
from hamgan.errors import CheckpointError, ConfigError
from hamgan.networks import build_networks
from hamgan.sampling import LoadedGenerator, load_generator, parse_classes, to_uint8, truncated_latent
from hamgan.sampling.classes import numbers_in
from hamgan.sampling.plan import plan_samples
from hamgan.sampling.writing import Output, write_plan

NAMES = ["tench, Tinca tinca", "goldfish", "golden retriever", "volcano", "great white shark", "12-string guitar"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a generator whose context block is open and whose statistics are those of real forwards."""
    folder = tmp_path_factory.mktemp("sampling")
    config = small_config(folder, f"data.num_classes={len(NAMES)}")
    network, _ = build_networks(config)
    with torch.no_grad():
        network.contexts["16"].get_parameter("gate").fill_(1.0)
        network.output_conv.weight.mul_(3)
        for seed in range(5):
            torch.manual_seed(seed)
            network(torch.randn(32, 16), torch.randint(len(NAMES), (32,)))
    save_generator(folder / "generator.safetensors", network, config, class_names=NAMES, kimg=2.0)
    return folder / "generator.safetensors"


@pytest.fixture(scope="module")
def generator(file: Path) -> LoadedGenerator:
    return load_generator(file, device="cpu")


def test_an_image_depends_on_its_seed_and_class_alone(generator: LoadedGenerator) -> None:
    seeds, classes = [5, 0, 9, 3, 7], [1, 2, 1, 4, 0]
    images = generator(seeds, classes, output="tensor")
    assert images.shape == (5, 3, 32, 32)
    assert images.dtype == torch.uint8
    for batch_size in (1, 2, 3):
        assert close(generator(seeds, classes, output="tensor", batch_size=batch_size), images)
    assert close(generator(seeds[::-1], classes[::-1], output="tensor"), images.flip(0))
    for index, (seed, label) in enumerate(zip(seeds, classes, strict=True)):
        torch.manual_seed(index)  # global randomness has no say
        assert close(generator([seed], [label], output="tensor"), images[index : index + 1])
    first: dict[str, Any] = {"seeds": np.int64(5), "classes": np.int64(1), "output": "tensor"}
    assert close(generator(**first), images[:1])
    assert len(torch.unique(images.flatten(1), dim=0)) == 5
    assert not torch.equal(generator([5], [2], output="tensor")[0], images[0])


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether images agree but for a grey level here and there, as kernels differ with the batch size."""
    difference = (first.int() - second.int()).abs()
    return bool(difference.max() <= 1 and (difference > 0).float().mean() < 1e-3)


def test_hamburgers_in_evaluation_mode_are_functions(generator: LoadedGenerator) -> None:
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2])
    with torch.no_grad():
        first = generator.network(z, labels)
        torch.manual_seed(99)
        assert torch.equal(generator.network(z, labels), first)
        assert torch.allclose(generator.network(z[1:2], labels[1:2]), first[1:2], atol=1e-5)


def test_folded_spectral_norm_gives_the_same_images(file: Path, generator: LoadedGenerator) -> None:
    unfolded, _, _ = load_generator_file(file)
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    assert any(name.endswith("vector") for name in unfolded.state_dict())
    assert not any(name.endswith("vector") for name in generator.network.state_dict())
    with torch.no_grad():
        assert (unfolded(z, labels) - generator.network(z, labels)).abs().max() < 1e-5


def test_latents_are_normal_and_functions_of_the_seed() -> None:
    many = torch.stack([truncated_latent(seed, 50) for seed in range(200)]).flatten()
    assert stats.kstest(many.numpy(), "norm").pvalue > 0.01
    assert torch.equal(truncated_latent(7, 50), many[350:400])
    assert len(torch.unique(many.view(200, 50), dim=0)) == 200
    assert torch.equal(truncated_latent(7, 50, 1.0), truncated_latent(7, 50, 5.0))


@pytest.mark.parametrize("truncation", [0.9, 0.5, 0.02])
def test_truncation_resamples_what_lies_outside(truncation: float) -> None:
    plain = torch.stack([truncated_latent(seed, 50) for seed in range(60)])
    cut = torch.stack([truncated_latent(seed, 50, truncation) for seed in range(60)])
    assert cut.abs().max() <= truncation
    inside = plain.abs() <= truncation
    assert torch.equal(cut[inside], plain[inside])
    truncated = stats.truncnorm(-truncation, truncation)
    assert stats.kstest(cut.flatten().numpy(), truncated.cdf).pvalue > 0.01


@pytest.mark.parametrize("truncation", [0, -0.5, 1e-9, float("nan")])
def test_a_truncation_that_never_ends_is_refused(generator: LoadedGenerator, truncation: float) -> None:
    with pytest.raises(ConfigError, match="it must be above 0"):
        generator([0], [0], truncation)


def test_pixels_are_rounded_and_clamped() -> None:
    values = torch.tensor([-1.5, -1.0, -0.999, 0.0, 0.0039, 1.0, 2.0]).view(1, 1, 1, -1)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 128, 128, 255, 255]


def test_pictures_and_tensors_show_the_same(generator: LoadedGenerator) -> None:
    tensors = generator([0, 1], ["volcano"], output="tensor")
    pictures = generator([0, 1], ["volcano"])
    for picture, tensor in zip(pictures, tensors, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), tensor.permute(1, 2, 0).numpy())
    assert generator([], [0], output="tensor").shape == (0, 3, 32, 32)


def test_classes_go_by_index_name_and_part_of_a_name(generator: LoadedGenerator) -> None:
    names: list[Any] = [3, "3", "volcano", "Tinca", "shark", np.int64(2)]
    assert [generator.class_index(name) for name in names] == [3, 3, 3, 0, 4, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (6, "class 6 is out of range; there are classes 0 to 5"),
        ("6", "class 6 is out of range; there are classes 0 to 5"),
        (-1, "class -1 is out of range"),
        (1.7, "class 1.7 is neither a whole number nor a name"),
        ("vulcano", "no class is called 'vulcano'; nearest: volcano"),
        ("gold", "no class is called 'gold'; nearest: goldfish, golden retriever"),
        ("zzzz", "no class is called 'zzzz'; there are tench"),
    ],
)
def test_an_unknown_class_names_the_nearest(generator: LoadedGenerator, name: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generator.class_index(name)


def test_seeds_and_classes_pair_up(generator: LoadedGenerator) -> None:
    with pytest.raises(ConfigError, match="3 seeds and 2 classes; give as many of both, or one class"):
        generator([0, 1, 2], [0, 1])


def test_numbers_classes_and_ranges_are_read(generator: LoadedGenerator) -> None:
    assert list(numbers_in("0-3,7, 9", "seed range")) == [0, 1, 2, 3, 7, 9]
    assert parse_classes(["1,3-5", "volcano", "12-string guitar"], generator) == [1, 3, 4, 5, 3, 5]


@pytest.mark.parametrize("text", ["7-3", "", "a", "1-", "-1", "1.5", "1--2", "²", "0-99999999999", "9" * 30])
def test_numbers_that_make_no_sense_get_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="seed range"):
        list(numbers_in(text, "seed range"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=8))
def test_any_text_is_numbers_or_a_sentence(text: str) -> None:
    try:
        assert all(number >= 0 for number in numbers_in(text, "seed range"))
    except ConfigError:
        return


def test_a_grid_has_a_row_per_class_and_a_folder_a_file_per_image(generator: LoadedGenerator, tmp_path: Path) -> None:
    plan = plan_samples([3, 1], [0, 1, 2], [1.0], generator.titles)
    write_plan(generator, plan, Output(tmp_path / "new/grid.png", scale=2))
    with Image.open(tmp_path / "new/grid.png") as sheet:
        assert sheet.height == 18 + 2 * 64 + 2
        corner = np.asarray(sheet)[18:82:2, sheet.width - 64 :: 2]
    expected = generator([2], [3], output="tensor")[0].permute(1, 2, 0).numpy()
    assert np.abs(corner.astype(int) - expected).max() <= 1
    write_plan(generator, plan_samples([3, 1], [0, 12], [1.0], generator.titles), Output(tmp_path / "folder"))
    names = ["0001-seed000000", "0001-seed000012", "0003-seed000000", "0003-seed000012"]
    assert sorted(path.stem for path in (tmp_path / "folder").iterdir()) == names
    with Image.open(tmp_path / "folder/0003-seed000012.png") as image:
        again = generator([12], [3], output="tensor")[0].permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(image).astype(int) - again).max() <= 1


def test_nothing_is_overwritten_and_other_formats_are_refused(generator: LoadedGenerator, tmp_path: Path) -> None:
    plan, taken = plan_samples([0], [0], [1.0], generator.titles), tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    for out, message in (
        (taken, "exists already"),
        (tmp_path, "exists already"),
        (tmp_path / "a.jpg", "sheets are written as .png"),
        (taken / "folder" / "a.png", "taken.png is a file, not a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_plan(generator, plan, Output(out))
    with pytest.raises(ConfigError, match="scale is 0"):
        write_plan(generator, plan, Output(tmp_path / "b.png", scale=0))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("taken.png", b"mine")]


def test_wrong_paths_and_devices_are_sentences(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no checkpoint at .*; did you mean `{file.parent}`"):
        load_generator(file.parent.with_name(file.parent.name + "x"))
    with pytest.raises(CheckpointError, match="neither a run nor a checkpoint"):
        load_generator(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not inside a run folder"):
        load_generator(tmp_path)
    with pytest.raises(ConfigError, match="device tpu9 cannot be used"):
        load_generator(file, device="tpu9")
