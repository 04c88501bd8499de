"""Test the conversion of foreign weights: names and inferred configuration; test_convert_command.py has the command."""

import json

import pytest
import torch
from support.foreign_weights import Variables, official_variables, weights
from support.paths import ROOT, golden_file

from hamgan.config import Config, load_config
from hamgan.convert.biggan import biggan_pytorch, convert_biggan
from hamgan.convert.mapping import Network, check_fit, empty_network
from hamgan.convert.official import convert_hamgan_tf, hamgan_tf, split_networks
from hamgan.errors import ConversionError


def full_size_variables(network: str) -> Variables:
    """Return names and shapes of the official full-size network, without memory."""
    layout = json.loads(golden_file("hamgan_tf/layout.json").read_text())[network]
    return {name: torch.empty(shape, device="meta") for part in layout.values() for name, shape in part}


FOREIGN_NAMES = [
    ("shortcut", "conv_sc"),
    ("norm1", "bn1"),
    ("norm2", "bn2"),
    ("running_", "stored_"),
    (".vector", ".u0"),
    ("output_norm.", "output_layer.0."),
    ("output_conv.", "output_layer.2."),
    (".query.", ".theta."),
    (".key.", ".phi."),
    (".value.", ".g."),
    (".output.", ".o."),
    (".gate", ".gamma"),
]


def foreign_state(config: Config, network: Network) -> Variables:
    """Return a BigGAN-PyTorch state dict of this configuration, made from our names by plain replacement."""
    state = {}
    for name, tensor in empty_network(network, config).state_dict().items():
        head, _, rest = name.partition(".")
        if head == "blocks":
            index, _, rest = rest.partition(".")
            name = f"blocks.{index}.0.{rest}"
        elif head == "contexts":
            size, _, rest = rest.partition(".")
            ratio = int(size) // 4 if network == "generator" else config.resolution // int(size)
            name = f"blocks.{ratio.bit_length() - 2}.1.{rest}"
        elif head == "class_embedding":
            name = f"{'shared' if network == 'generator' else 'embed'}.{rest}"
        for ours, theirs in FOREIGN_NAMES:
            name = name.replace(ours, theirs)
        state[name] = torch.zeros(1, *tensor.shape) if name.endswith("u0") else torch.zeros(tensor.shape)
    return state


@pytest.mark.parametrize(
    "options",
    [
        ["resolution=32", "generator.context_resolutions=[16]", "discriminator.context_resolutions=[8]"],
        ["resolution=64", "generator.hierarchical=false", "generator.latent_dim=17"],
        ["resolution=128", "generator.context_resolutions=[32,64]", "discriminator.context_resolutions=[32]"],
        ["resolution=256", "generator.context=none", "discriminator.context=none", "generator.latent_dim=140"],
        ["resolution=256", "generator.spectral_norm.enabled=false", "generator.latent_dim=140"],
    ],
)
def test_configuration_is_inferred_from_names_and_shapes(options: list[str]) -> None:
    fixed = ["generator.context=attention", "discriminator.context=attention", "data.num_classes=7"]
    small = ["generator.channels=8", "discriminator.channels=8", "generator.class_embedding_dim=12"]
    if any("32" in option for option in options[:1]):
        small.append("generator.latent_dim=20")
    config = load_config(None, [*fixed, *small, *(["discriminator.context_resolutions=[32]"]), *options])
    generator, _ = biggan_pytorch(foreign_state(config, "generator"))
    discriminator, _ = biggan_pytorch(foreign_state(config, "discriminator"))
    expected = config.generator
    if expected.context == "none":
        expected.context_resolutions = generator.generator.context_resolutions
        config.discriminator.context_resolutions = discriminator.discriminator.context_resolutions
    assert generator.generator == expected
    assert discriminator.discriminator == config.discriminator
    assert generator.resolution == discriminator.resolution == config.resolution
    assert generator.data.num_classes == discriminator.data.num_classes == 7


def test_gain_tables_without_shared_embedding_gain_one() -> None:
    """Convert weights as ``launch_cifar_ema.sh`` trains them: plain embeddings of the class, used as 1 + gain."""
    config = load_config(
        None,
        [
            "resolution=32",
            "data.num_classes=5",
            "generator.channels=4",
            "generator.latent_dim=20",
            "generator.hierarchical=false",
            "generator.conditioning=per_class",
            "generator.context=none",
            "discriminator.context=none",
        ],
    )
    source = foreign_state(config, "generator")
    for name in [name for name in source if name.endswith((".gamma", ".beta"))]:
        table = source.pop(name)
        source[name.replace("gamma", "gain.weight").replace("beta", "bias.weight")] = torch.randn(table.shape)
    recorded = json.loads(golden_file("biggan_pytorch/configs.json").read_text())["biggan32_cifar"]
    parameters = {name: value for name, value in source.items() if not name.endswith(("u0", "mean", "var"))}
    assert sum(value.numel() for value in parameters.values()) == recorded["G_params"]
    inferred, state = biggan_pytorch(source)
    assert inferred.generator.conditioning == "per_class"
    assert not inferred.generator.hierarchical
    assert torch.equal(state["blocks.1.norm2.gamma"], 1 + source["blocks.1.0.bn2.gain.weight"])
    assert torch.equal(state["blocks.1.norm2.beta"], source["blocks.1.0.bn2.bias.weight"])


def test_own_batch_norm_with_standing_sums() -> None:
    """Convert norms of BigGAN-PyTorch's ``--mybn``: sums, a counter and the biased variance in a child module."""
    source = weights("biggan32_hier_g")
    for name in [name for name in source if name.endswith("stored_mean")]:
        stem = name.removesuffix("stored_mean")
        for kind in ("stored_mean", "stored_var"):
            source[f"{stem}bn.{kind}"] = 4 * source.pop(stem + kind)
        source[f"{stem}bn.accumulation_counter"] = torch.tensor([4.0])
    config, state = biggan_pytorch(source)
    assert config.generator.norm.biased
    plain = biggan_pytorch(weights("biggan32_hier_g"))[1]
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in state)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("run", ["strong", "baby"])
def test_full_size_official_variables_make_the_shipped_configuration(network: str, run: str) -> None:
    config, state = hamgan_tf(full_size_variables(network))
    shipped = load_config(ROOT / f"configs/hamgan_{run}_imagenet128.yaml")
    assert getattr(config, network) == getattr(shipped, network)
    assert config.resolution == shipped.resolution
    assert config.data.num_classes == shipped.data.num_classes
    for key in ("adam_eps", "adam_eps_placement", "ema_decay", "beta1", "beta2", "generator_lr", "discriminator_lr"):
        assert getattr(config.train, key) == getattr(shipped.train, key)
    assert len(state) == len(full_size_variables(network))


def test_estimator_prefixes_and_optimiser_slots() -> None:
    """Convert names with the estimator's prefix, beside which Adam's slots and counters stand."""
    variables: Variables = {"global_step": torch.tensor(7), "generator_train/beta1_power": torch.tensor(0.5)}
    for file in ("generator_v1_nmf", "discriminator_v1_nmf"):
        scope = file.split("_")[0]
        for name, value in official_variables(file).items():
            longer = name.replace(f"{scope}/", f"{scope.capitalize()}/{scope}/")
            variables[longer] = value
            if name.endswith("kernel"):
                variables[f"{longer}/Adam"] = variables[f"{longer}/Adam_1"] = torch.zeros_like(value)
    networks = split_networks(variables)
    assert set(networks) == {"generator", "discriminator"}
    for network, own in networks.items():
        conversion = convert_hamgan_tf(network, own)
        check_fit(conversion)
        expected = hamgan_tf(official_variables(f"{network}_v1_nmf"))[1]
        assert conversion.state.keys() == expected.keys()
        assert all(torch.equal(conversion.state[name], expected[name]) for name in expected)
        assert "global_step" in conversion.ignored


def test_variables_of_both_networks_are_asked_for_one_by_one() -> None:
    both = official_variables("generator_v1_nmf") | official_variables("discriminator_v1_nmf")
    with pytest.raises(ConversionError, match="generator and discriminator"):
        hamgan_tf(both)


def test_leftovers_are_errors_unless_allowed() -> None:
    source = weights("biggan32_hier_d")
    source["blocks.0.0.extra.weight"] = source.pop("linear.bias")
    with pytest.raises(ConversionError, match=r"does not use 1 tensors: `blocks.0.0.extra.weight`"):
        biggan_pytorch(source)
    conversion = convert_biggan(source)
    check_fit(conversion, allow_leftovers=True)
    assert conversion.unused == ["blocks.0.0.extra.weight"]
    assert conversion.missing == ["linear.bias"]


def test_a_second_tensor_for_one_place_is_left_over() -> None:
    source = weights("biggan32_hier_g")
    source["blocks.0.0.bn1.bn.stored_mean"] = source["blocks.0.0.bn1.stored_mean"] + 1
    with pytest.raises(ConversionError, match=r"does not use 1 tensors: `blocks\.0\.0\.bn1\.bn\.stored_mean`"):
        biggan_pytorch(source)


def test_official_variables_may_be_arrays() -> None:
    tensors = official_variables("discriminator_v1_nmf")
    state = hamgan_tf({name: value.numpy() for name, value in tensors.items()})[1]
    assert all(torch.equal(value, state[name]) for name, value in hamgan_tf(tensors)[1].items())
