"""Test starting from the weights of another model: matching names, fresh Hamburgers, other classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.paths import golden_file
from torch import Tensor, nn

from hamgan.checkpoint import save_generator
from hamgan.checkpoint.warm_start import initialise_from, parse_class_mapping
from hamgan.config import Config
from hamgan.convert.biggan import biggan_pytorch
from hamgan.convert.official import hamgan_tf
from hamgan.errors import CheckpointError
from hamgan.networks import Discriminator, Generator, build_networks
from hamgan.networks.spectral_norm import SpectralWeight


def converted() -> tuple[Config, dict[str, Tensor], dict[str, Tensor]]:
    """Convert the recorded BigGAN of 32 px with attention in G, and its discriminator."""
    config, generator = biggan_pytorch(load_file(golden_file("biggan_pytorch/biggan32_hier_g.safetensors")))
    second, discriminator = biggan_pytorch(load_file(golden_file("biggan_pytorch/biggan32_hier_d.safetensors")))
    config.discriminator = second.discriminator
    return config, generator, discriminator


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write a checkpoint folder with G, its average (with other biases) and D."""
    _, generator, discriminator = converted()
    average = {key: value.clone() for key, value in generator.items()}
    average["linear.bias"] += 1
    tensors = {f"generator.{key}": value for key, value in generator.items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    tensors |= {f"discriminator.{key}": value for key, value in discriminator.items()}
    save_file(tensors, tmp_path / "state.safetensors")
    return tmp_path


def generator_file(tmp_path: Path) -> Path:
    config, state, _ = converted()
    generator = Generator(config.generator, config.resolution, 5)
    generator.load_state_dict(state)
    save_generator(tmp_path / "generator.safetensors", generator, config)
    return tmp_path / "generator.safetensors"


def hamgan_networks(classes: int = 5) -> dict[str, nn.Module]:
    """Build the networks of the same model with Hamburgers, in D too."""
    config, _, _ = converted()
    config.data.num_classes = classes
    config.generator.context = config.discriminator.context = "hamburger"
    config.generator.context_resolutions, config.discriminator.context_resolutions = [32], [16]
    config.generator.hamburger.rank = config.discriminator.hamburger.rank = 4
    generator, discriminator = build_networks(config)
    return {"generator": generator, "discriminator": discriminator}


def sample(generator: nn.Module, labels: list[int]) -> Tensor:
    z = torch.randn(len(labels), 20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        images: Tensor = generator.eval()(z, torch.tensor(labels))
    return images


def test_a_hamburger_in_the_place_of_attention_starts_as_the_source_without_it(source: Path) -> None:
    networks = hamgan_networks()
    report = initialise_from(networks, source)
    config, state, discriminator_state = converted()
    config.generator.context = "none"
    plain = Generator(config.generator, 32, 5)
    plain.load_state_dict(state, strict=False)
    assert torch.equal(sample(networks["generator"], [0, 3, 4]), sample(plain, [0, 3, 4]))
    # The source's attention has a gate of its own, which must not open the Hamburger's.
    assert state["contexts.32.gate"].item() != 0
    assert networks["generator"].get_parameter("contexts.32.gate").item() == 0
    assert {name.split(".")[0] for name in report["generator"].new} == {"contexts"}
    assert "contexts.32.query.weight" in report["generator"].unused
    assert not report["generator"].redrawn
    for name, value in discriminator_state.items():
        assert torch.equal(networks["discriminator"].state_dict()[name], value)
    assert report["generator"].summary("generator").startswith("generator")
    assert "new: contexts.32" in report["generator"].summary("generator")


def test_a_context_block_of_the_same_kind_is_taken_over_whole(source: Path) -> None:
    config, state, _ = converted()
    generator = Generator(config.generator, 32, 5)
    report = initialise_from({"generator": generator}, source)["generator"]
    assert not report.new
    assert not report.unused
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())


def test_g_and_its_average_come_from_their_own_weights(source: Path) -> None:
    networks = hamgan_networks()
    networks["average"] = hamgan_networks()["generator"]
    initialise_from(networks, source)
    bias = networks["generator"].get_parameter("linear.bias")
    assert torch.equal(networks["average"].get_parameter("linear.bias"), bias + 1)


def test_a_generator_file_serves_g_and_leaves_d_new(tmp_path: Path) -> None:
    networks = hamgan_networks()
    before = {name: value.clone() for name, value in networks["discriminator"].state_dict().items()}
    report = initialise_from(networks, generator_file(tmp_path))
    _, state, _ = converted()
    assert torch.equal(networks["generator"].get_parameter("linear.weight"), state["linear.weight"])
    assert not report["discriminator"].loaded
    after = networks["discriminator"].state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_other_classes_are_drawn_like_the_source_s(source: Path) -> None:
    networks = hamgan_networks(classes=400)
    report = initialise_from(networks, source, seed=1)
    _, state, discriminator_state = converted()
    for network, tables in ((networks["generator"], state), (networks["discriminator"], discriminator_state)):
        table = network.get_parameter("class_embedding.weight").detach()
        known = tables["class_embedding.weight"]
        assert table.shape[0] == 400
        assert torch.allclose(table.mean(0), known.mean(0), atol=4 * known.std().item() / 20)
        assert torch.allclose(table.std(0), known.std(0, correction=0), rtol=0.2)
    assert report["discriminator"].warmed == ["class_embedding.vector"]
    assert report["generator"].redrawn
    assert report["generator"].classes == ["class_embedding.weight"]
    again = hamgan_networks(classes=400)
    initialise_from(again, source, seed=1)
    assert torch.equal(sample(networks["generator"], [399]), sample(again["generator"], [399]))


def test_new_singular_vectors_are_warm(source: Path) -> None:
    """Check that D's class table is divided by its largest singular value at once, not after a hundred steps."""
    networks = hamgan_networks(classes=400)
    initialise_from(networks, source)
    table = networks["discriminator"].get_submodule("class_embedding")
    assert isinstance(table, SpectralWeight)
    table.eval().effective_weight()
    largest = torch.linalg.svdvals(table.weight.detach())[0].item()
    assert table.get_buffer("sigma").item() == pytest.approx(largest, rel=0.02)


def test_classes_are_copied_by_a_mapping(source: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"0": 4, "1": 4, "2": 0}))
    mapping = parse_class_mapping(str(tmp_path / "map.json"), 3)
    networks = hamgan_networks(classes=3)
    initialise_from(networks, source, classes=mapping)
    _, state, _ = converted()
    table = networks["generator"].get_parameter("class_embedding.weight")
    assert torch.equal(table, state["class_embedding.weight"][[4, 4, 0]])


def test_per_class_gains_follow_the_classes_as_well(tmp_path: Path) -> None:
    """Check the gamma and beta per class that the official HamGAN has in every norm, the Hamburger's too."""
    with np.load(golden_file("hamgan_tf/generator_v1_nmf.npz")) as arrays:
        variables = {key[4:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("var/")}
    config, state = hamgan_tf(variables)
    save_file({f"generator.{key}": value for key, value in state.items()}, tmp_path / "state.safetensors")
    generator = Generator(config.generator, 128, 2)
    report = initialise_from({"generator": generator}, tmp_path, classes={0: 3, 1: 1})["generator"]
    assert not report.new
    for name in ("blocks.2.norm1.gamma", "contexts.32.norm.beta"):
        assert torch.equal(generator.state_dict()[name], state[name][[3, 1]])
    assert torch.equal(generator.state_dict()["contexts.32.gate"], state["contexts.32.gate"])


def test_a_slicing_layer_follows_the_classes_as_well(tmp_path: Path) -> None:
    config, _, _ = converted()
    config.discriminator.last_layer = "san"
    source = Discriminator(config.discriminator, 32, 5)
    assert source.slicing is not None
    torch.nn.init.uniform_(source.slicing.scale)
    tensors = {f"discriminator.{key}": value.contiguous() for key, value in source.state_dict().items()}
    save_file(tensors, tmp_path / "state.safetensors")
    for mapping in ({0: 1, 1: 0, 2: 2, 3: 3, 4: 4}, {0: 3, 1: 1}):
        network = Discriminator(config.discriminator, 32, len(mapping))
        report = initialise_from({"discriminator": network}, tmp_path, classes=mapping)["discriminator"]
        assert report.classes == ["slicing.direction", "slicing.scale"]
        assert network.slicing is not None
        for name in ("direction", "scale"):
            known = source.slicing.get_parameter(name)[list(mapping.values())]
            assert torch.equal(network.slicing.get_parameter(name), known)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"0": 1}', "maps 1 classes; classes 0 to 2"),
        ("[1, 2, 3]", "no JSON file|neither auto"),
        (None, "neither auto, redraw nor a JSON file"),
    ],
)
def test_a_bad_mapping_is_a_sentence(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        parse_class_mapping(str(path), 3)


def test_a_mapping_to_an_unknown_class_is_a_sentence(source: Path) -> None:
    with pytest.raises(CheckpointError, match="mapped to 9; the source has classes 0 to 4"):
        initialise_from(hamgan_networks(classes=1), source, classes={0: 9})


def test_a_bad_source_is_a_sentence(tmp_path: Path) -> None:
    networks = hamgan_networks()
    (tmp_path / "photos").mkdir()
    with pytest.raises(CheckpointError, match=r"no weights at .*/photo; did you mean `.*/photos`\?$"):
        initialise_from(networks, tmp_path / "photo")
    with pytest.raises(CheckpointError, match=r"convert foreign weights first"):
        initialise_from(networks, golden_file("biggan_pytorch/biggan32_hier_g.safetensors"))
    save_file({"generator.other": torch.zeros(1)}, tmp_path / "state.safetensors")
    with pytest.raises(CheckpointError, match=r"nothing in .* fits the generator"):
        initialise_from(networks, tmp_path)


def test_the_source_s_vector_on_the_other_side_is_replaced(source: Path) -> None:
    config, _, _ = converted()
    config.discriminator.spectral_norm.vector = "input"
    discriminator = Discriminator(config.discriminator, 32, 5)
    initialise_from({"discriminator": discriminator}, source)
    for module in discriminator.eval().modules():
        if isinstance(module, SpectralWeight):
            module.effective_weight()
            largest = torch.linalg.svdvals(module.weight.detach().flatten(1))[0].item()
            assert module.get_buffer("sigma").item() == pytest.approx(largest, rel=0.1)
