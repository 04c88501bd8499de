"""Check that the generator's form for drawing gives the images of the trained form, bit for bit in every batch."""

from pathlib import Path

import pytest
import torch
from support.generators import VARIANTS, latents, trained_form
from support.small_runs import small_config

from hamgan.config import load_config
from hamgan.networks import Generator
from hamgan.networks.inference import InferenceGenerator, chunk_size, fold_spectral_norm
from hamgan.sampling import LoadedGenerator


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_form_that_draws_equals_the_form_that_is_trained(tmp_path: Path, variant: str) -> None:
    network = trained_form(tmp_path, *VARIANTS[variant])
    z, labels = latents(6)
    with torch.no_grad():
        expected = network(z, labels)
        folded = fold_spectral_norm(network)
        assert (folded(z, labels) - expected).abs().max() < 1e-5
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = InferenceGenerator(folded)(z, labels)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_blended_classes_equal_their_ends_and_lie_between(tmp_path: Path) -> None:
    for number, variant in enumerate(("hierarchical", "per class")):
        network = fold_spectral_norm(trained_form(tmp_path / str(number), *VARIANTS[variant]))
        draw = InferenceGenerator(network)
        z, labels = latents(3)
        weights = torch.nn.functional.one_hot(labels, 5).float()
        assert (draw(z, weights) - draw(z, labels)).abs().max() < 1e-5
        middle = draw(z, weights.roll(1, dims=1).lerp(weights, 0.5))
        assert (middle - draw(z, labels)).abs().max() > 1e-3


def test_an_image_has_the_same_bits_in_every_batch_and_on_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = fold_spectral_norm(trained_form(tmp_path))
    generator = LoadedGenerator(network, small_config(tmp_path, "data.num_classes=5"))
    z, labels = latents(37)
    images = generator.images(z, labels)
    assert len(torch.unique(images.flatten(1), dim=0)) == 37
    for size in (1, 2, 7, 16, 20):
        parts = [generator.images(*part) for part in zip(z.split(size), labels.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), images), size
    for cores in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        assert torch.equal(generator.images(z, labels), images)
        assert torch.equal(generator.images(z.flip(0), labels.flip(0)), images.flip(0))


def test_half_precision_draws_similar_images(tmp_path: Path) -> None:
    network = fold_spectral_norm(trained_form(tmp_path))
    generator = LoadedGenerator(network, small_config(tmp_path, "data.num_classes=5"))
    z, labels = latents(4)
    exact = generator.images(z, labels).int()
    half = LoadedGenerator(network.bfloat16(), generator.config).images(z, labels).int()
    assert 0 < (half - exact).abs().float().mean() < 4


def test_chunks_fit_into_memory_that_is_reused() -> None:
    for name, resolution, expected in (
        ("photos", 32, 4),
        ("hamgan_imagenet128", 128, 4),
        ("hamgan_imagenet128", 256, 1),
    ):
        config = load_config(f"configs/{name}.yaml", ["data.num_classes=5"])
        with torch.device("meta"):
            network = Generator(config.generator, resolution, 5)
        assert chunk_size(network) == expected
