"""Convert variables of the official HamGAN (Gsunshine/Enjoy-Hamburger, TensorFlow) to our state dicts.

Kernels are HWIO, dense kernels [in, out], images NHWC; the stored singular vector is on the input side, in (H, W, I)
order, like ours with ``vector: input``.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from hamgan.config import Config, DiscriminatorConfig, GeneratorConfig, HamburgerConfig
from hamgan.convert.mapping import Conversion, Network, Rule, apply_rules, check_fit, resolution_and_width, shape_of
from hamgan.errors import ConversionError
from hamgan.networks.discriminator import DISCRIMINATOR_WIDTHS
from hamgan.networks.generator import GENERATOR_WIDTHS, START

# Not visible in names and shapes; these are the values of the official runs.
_OFFICIAL_RANKS = {"generator": 32, "discriminator": 16}
_OFFICIAL_STEPS = 6

_BLOCKS = range(1, 9)
_FIRST_BLOCK = "d_optimized_block1"
# Preceded by a repetition of the variable's scope, with another prefix in each graph.
_VECTOR = "(?:.*/)?spectral_norm_u"
_SLOTS = Rule(r".*/Adam(_1)?", None)


def hamgan_tf(variables: Mapping[str, Tensor | np.ndarray]) -> tuple[Config, dict[str, Tensor]]:
    """Convert the variables (name -> tensor or array) of an official generator or discriminator.

    Returns its configuration and our state dict. Rank, steps and kind of the decomposition are not in the variables and
    are those of the official runs. Raises ConversionError for leftovers, or for variables of both networks (convert
    them separately, see `split_networks`).
    """
    tensors = {name: torch.as_tensor(value) for name, value in variables.items()}
    networks = split_networks(tensors)
    if len(networks) != 1:
        raise ConversionError(
            f"the variables hold {' and '.join(networks) or 'neither a generator nor a discriminator'}; "
            "give those of one network (names start with generator/ or discriminator/)"
        )
    conversion = convert_hamgan_tf(next(iter(networks)), tensors)
    check_fit(conversion)
    return conversion.config, conversion.state


def split_networks(variables: Mapping[str, Tensor]) -> dict[Network, dict[str, Tensor]]:
    """Return the variables of each network in a checkpoint; all others (global_step ...) are in each."""
    names: dict[Network, set[str]] = {"generator": set(), "discriminator": set()}
    for network, own in names.items():
        own.update(name for name in variables if _scope(network, name) is not None)
    own = names["generator"] | names["discriminator"]
    return {
        network: {name: value for name, value in variables.items() if name in found or name not in own}
        for network, found in names.items()
        if found
    }


def _scope(network: Network, name: str) -> str | None:
    """Return the name inside its network's scope, also after the estimator's prefix Generator/ or Discriminator/."""
    match = re.fullmatch(rf"(?:{network.capitalize()}/)?{network}/(.+?)(?::0)?", name)
    return match[1] if match else None


def convert_hamgan_tf(network: Network, variables: Mapping[str, Tensor]) -> Conversion:
    """Convert without the final check, for reports and partial files; see `hamgan_tf`."""
    scopes = {name: _scope(network, name) for name in variables}
    full_names = {scoped: name for name, scoped in scopes.items() if scoped is not None}
    source = {scoped: variables[name] for scoped, name in full_names.items()}
    if network == "generator":
        config = _generator_config(source)
        rules = _generator_rules(config.generator)
    else:
        config = _discriminator_config(source)
        rules = _discriminator_rules(config.discriminator)
    conversion = Conversion(network, config, {})
    apply_rules(source, rules, conversion)
    conversion.mapped = {full_names[name]: target for name, target in conversion.mapped.items()}
    conversion.ignored = [full_names[name] for name in conversion.ignored]
    conversion.unused = [full_names[name] for name in conversion.unused]
    for name in [name for name, scoped in scopes.items() if scoped is None]:
        known = re.fullmatch(r"(.*/)?(global_step|beta[12]_power(_\d+)?)(:0)?", name)
        (conversion.ignored if known else conversion.unused).append(name)
    section = config.generator if network == "generator" else config.discriminator
    if section.context == "hamburger":
        keys = ("decomposition", "rank", "steps", "heads")
        conversion.assumed = [f"{network}.hamburger.{key}" for key in keys]
    return conversion


def official_base() -> Config:
    """Return the configuration that all official runs share: batch norm, spectral norm, initialisation, optimiser."""
    config = Config(name="hamgan-official")
    generator, discriminator = config.generator, config.discriminator
    generator.latent_dim, generator.hierarchical, generator.conditioning = 128, False, "per_class"
    generator.norm.eps, generator.norm.momentum, generator.norm.biased = 1e-3, 1e-3, True
    for network in (generator, discriminator):
        network.init = "glorot"
        # 1e-6 on a norm is 1e-12 on its square, as in TensorFlow's l2_normalize.
        network.spectral_norm.clamp, network.spectral_norm.vector, network.spectral_norm.eps = True, "input", 1e-6
    config.train.adam_eps, config.train.adam_eps_placement = 1e-8, "tensorflow"
    config.train.ema_decay = 0.0
    return config


def _block_channels(source: Mapping[str, Tensor], scopes: list[str], conv: str) -> list[int]:
    """Return the output channels of the existing residual blocks, in order."""
    names = [f"{scope}/{conv}/{conv}/kernel" for scope in scopes]
    return [source[name].shape[3] for name in names if name in source]


def _generator_config(source: Mapping[str, Tensor]) -> Config:
    found = _block_channels(source, [f"g_block{index}" for index in _BLOCKS], "snconv2")
    expected = "the official one has 5, g_block1 to g_block5 (128 px)"
    config = _with_width(*resolution_and_width(found, GENERATOR_WIDTHS, "generator", expected))
    config.generator.latent_dim = shape_of(source, "g_snh0/dense/kernel")[0]
    config.data.num_classes = shape_of(source, "g_block1/cbn_0/gamma")[0]
    size_of_width = {width: START * 2 ** (index + 1) for index, width in enumerate(found)}
    _describe_context(source, "g_ops", size_of_width, config, "generator")
    return config


def _discriminator_config(source: Mapping[str, Tensor]) -> Config:
    found = _block_channels(source, [_FIRST_BLOCK, *(f"d_block{index}" for index in _BLOCKS)], "sn_conv2")
    expected = "the official one has 6, d_optimized_block1 to d_block6 (128 px)"
    config = _with_width(*resolution_and_width(found, DISCRIMINATOR_WIDTHS, "discriminator", expected))
    config.data.num_classes = shape_of(source, "d_embedding/embedding_map")[0]
    # The last block has resolution and width of the one before, so the first block of a width counts.
    size_of_width = {width: config.resolution // 2 ** (index + 1) for index, width in reversed(list(enumerate(found)))}
    _describe_context(source, "d_ops", size_of_width, config, "discriminator")
    return config


def _with_width(resolution: int, channels: int) -> Config:
    config = official_base()
    config.resolution = resolution
    config.generator.channels = config.discriminator.channels = channels
    return config


def _describe_context(
    source: Mapping[str, Tensor], scope: str, size_of_width: Mapping[int, int], config: Config, network: Network
) -> None:
    """Set the Hamburger's position from its channels; the other network gets a Hamburger of the same kind."""
    both: list[tuple[Network, GeneratorConfig | DiscriminatorConfig]]
    both = [("generator", config.generator), ("discriminator", config.discriminator)]
    lower, cheese = f"{scope}/sn_lower_bread/weights", f"{scope}/sn_cheese/weights"
    if lower not in source:
        for _, section in both:
            section.context = "none"
        return
    channels, latent = source[lower].shape[2:]
    if channels not in size_of_width:
        raise ConversionError(f"the Hamburger has {channels} channels, but no block of the {network} has as many")
    for name, section in both:
        section.context_resolutions = [size_of_width[channels]]
        section.hamburger = HamburgerConfig(
            version="v2" if cheese in source else "v1", rank=_OFFICIAL_RANKS[name], steps=_OFFICIAL_STEPS
        )
    own = dict(both)[network].hamburger
    own.latent_dim = latent
    if cheese in source and source[cheese].shape[3] != latent:
        own.cheese_dim = source[cheese].shape[3]


def _generator_rules(section: GeneratorConfig) -> list[Rule]:
    rules = [
        _SLOTS,
        Rule("g_snh0/dense/kernel", "linear.weight", lambda kernel: _first_rows(kernel.T)),
        Rule("g_snh0/dense/bias", "linear.bias", _first_rows),
        Rule(f"g_snh0/dense/{_VECTOR}", "linear.vector", torch.flatten),
        *_norm_rules("g_bn", "output_norm", "gain", "bias", torch.flatten),
        *_spectral_rules("g_snconv_last/g_snconv_last", "output_conv"),
    ]
    for block in _BLOCKS:
        for index in (1, 2):
            rules += _norm_rules(f"g_block{block}/cbn_{index - 1}", f"blocks.{block - 1}.norm{index}", "gamma", "beta")
        for part, ours in (("snconv1", "conv1"), ("snconv2", "conv2"), ("snconv3", "shortcut")):
            rules += _spectral_rules(f"g_block{block}/{part}/{part}", f"blocks.{block - 1}.{ours}")
    return rules + _context_rules("g_ops", section)


def _discriminator_rules(section: DiscriminatorConfig) -> list[Rule]:
    rules = [
        _SLOTS,
        Rule("d_sn_linear/dense/kernel", "linear.weight", lambda kernel: kernel.T),
        Rule("d_sn_linear/dense/bias", "linear.bias"),
        Rule(f"d_sn_linear/dense/{_VECTOR}", "linear.vector", torch.flatten),
        Rule("d_embedding/embedding_map", "class_embedding.weight"),
        Rule(f"d_embedding/{_VECTOR}", "class_embedding.vector", torch.flatten),
    ]
    for block in _BLOCKS:
        scope = _FIRST_BLOCK if block == 1 else f"d_block{block}"
        for part, ours in (("sn_conv1", "conv1"), ("sn_conv2", "conv2"), ("sn_conv3", "shortcut")):
            rules += _spectral_rules(f"{scope}/{part}/{part}", f"blocks.{block - 1}.{ours}")
    return rules + _context_rules("d_ops", section)


def _context_rules(scope: str, section: GeneratorConfig | DiscriminatorConfig) -> list[Rule]:
    if section.context == "none":
        return []
    target = f"contexts.{section.context_resolutions[0]}"
    rules = [Rule(f"{scope}/sigma_ratio", f"{target}.gate")]
    for part in ("lower_bread", "cheese", "upper_bread"):
        rules += _spectral_rules(f"{scope}/sn_{part}", f"{target}.{part}", kernel="weights")
    return rules + _norm_rules(f"{scope}/(?:upper_bread|cheese)_bn", f"{target}.norm", "gamma", "beta")


def _spectral_rules(scope: str, target: str, kernel: str = "kernel") -> list[Rule]:
    return [
        Rule(f"{scope}/{kernel}", f"{target}.weight", lambda weight: weight.permute(3, 2, 0, 1)),
        Rule(f"{scope}/bias", f"{target}.bias"),
        Rule(f"{scope}/{_VECTOR}", f"{target}.vector", torch.flatten),
    ]


def _norm_rules(
    scope: str, target: str, gain: str, bias: str, change: Callable[[Tensor], Tensor] = lambda table: table.flatten(1)
) -> list[Rule]:
    """Map tables [classes, 1, 1, C] to [classes, C]; ``change`` flattens unconditional ones [1, 1, 1, C]."""
    return [
        Rule(f"{scope}/gamma", f"{target}.{gain}", change),
        Rule(f"{scope}/beta", f"{target}.{bias}", change),
        Rule(f"{scope}/moving_mean", f"{target}.running_mean"),
        Rule(f"{scope}/moving_variance", f"{target}.running_var"),
    ]


def _first_rows(values: Tensor) -> Tensor:
    """Reorder rows of the first linear layer from the (H, W, C) of its 4x4 map to (C, H, W)."""
    rows: Tensor = values.unflatten(0, (START, START, -1)).movedim(2, 0).flatten(0, 2)
    return rows
