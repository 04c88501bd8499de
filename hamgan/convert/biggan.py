"""Convert weights of BigGAN-PyTorch (ajbrock/BigGAN-PyTorch: G, G_ema and D) to ours.

Its names: ``blocks.I.0`` is the residual block I, ``blocks.I.1`` the attention after it, ``u0`` the stored singular
vector (output side, like ours), ``sv0`` the last sigma, for its log.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from hamgan.config import Config, latent_chunks
from hamgan.convert.mapping import Conversion, Network, Rule, apply_rules, check_fit, resolution_and_width, shape_of
from hamgan.errors import ConversionError
from hamgan.networks.discriminator import DISCRIMINATOR_WIDTHS
from hamgan.networks.generator import GENERATOR_WIDTHS, START

# Not visible in names and shapes; these are the values of BigGAN-PyTorch's launch scripts for ImageNet.
_ASSUMED: dict[Network, tuple[str, ...]] = {
    "generator": ("norm.eps", "norm.momentum", "spectral_norm.eps"),
    "discriminator": ("spectral_norm.eps",),
}


def biggan_pytorch(state_dict: Mapping[str, Tensor]) -> tuple[Config, dict[str, Tensor]]:
    """Convert a BigGAN-PyTorch generator or discriminator; returns its configuration and our state dict.

    Raises ConversionError for tensors that are left over, missing or of another architecture.
    """
    conversion = convert_biggan(state_dict)
    check_fit(conversion)
    return conversion.config, conversion.state


def recognise_biggan(names: set[str]) -> Network | None:
    """Return which of BigGAN-PyTorch's networks has these tensor names, or None."""
    names = {name.removeprefix("module.") for name in names}
    if not any(re.fullmatch(r"blocks\.0\.0\.conv1\.weight", name) for name in names):
        return None
    return "discriminator" if "embed.weight" in names else "generator"


def convert_biggan(state_dict: Mapping[str, Tensor]) -> Conversion:
    """Convert without the final check, for reports and partial files; see `biggan_pytorch`."""
    source = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    network = recognise_biggan(set(source))
    if network is None:
        raise ConversionError(
            "these weights are not of BigGAN-PyTorch: there is no `blocks.0.0.conv1.weight` (BigGAN-deep, the TF-Hub "
            f"port and other families are other architectures); found {', '.join(sorted(source)[:3]) or 'nothing'}"
        )
    if any(name.endswith((".u1", ".conv3.weight", ".conv4.weight")) for name in source):
        raise ConversionError(
            "these weights are of BigGAN-deep or have several singular vectors per layer; BigGAN with one is supported"
        )
    _average_standing_sums(source)
    config = _generator_config(source) if network == "generator" else _discriminator_config(source)
    conversion = Conversion(network, config, {})
    conversion.assumed = [f"{network}.{key}" for key in _ASSUMED[network]]
    apply_rules(source, _rules(network, config), conversion)
    return conversion


def _average_standing_sums(source: dict[str, Tensor]) -> None:
    """Divide the sums that BigGAN-PyTorch's own batch norm keeps as standing statistics by their counter."""
    for name in [name for name in source if name.endswith("accumulation_counter")]:
        count = float(source[name].sum())
        if count > 0:
            stem = name.removesuffix("accumulation_counter")
            for kind in ("stored_mean", "stored_var"):
                source[stem + kind] = source[stem + kind] / count


def _block_channels(source: Mapping[str, Tensor]) -> list[int]:
    """Return the output channels of the residual blocks, in order."""
    count = 0
    while f"blocks.{count}.0.conv1.weight" in source:
        count += 1
    return [shape_of(source, f"blocks.{index}.0.conv2.weight")[0] for index in range(count)]


def _attention_blocks(source: Mapping[str, Tensor]) -> list[int]:
    matches = (re.fullmatch(r"blocks\.(\d+)\.1\.theta\.weight", name) for name in source)
    return sorted(int(match[1]) for match in matches if match)


def _base_config(resolution: int, channels: int, source: Mapping[str, Tensor]) -> Config:
    """Return a configuration with this width for both networks, and the usual settings for the one not in the file."""
    config = Config(name="biggan", resolution=resolution)
    config.generator.latent_dim = 20 * latent_chunks(resolution)
    for network in (config.generator, config.discriminator):
        network.channels = channels
        network.context = "none"
        network.spectral_norm.enabled = any(name.endswith("u0") for name in source)
    return config


def _generator_config(source: Mapping[str, Tensor]) -> Config:
    found = _block_channels(source)
    supported = "3 (32 px) to 7 (512 px) are supported"
    resolution, channels = resolution_and_width(found, GENERATOR_WIDTHS, "generator", supported)
    config = _base_config(resolution, channels, source)
    generator, chunk = config.generator, shape_of(source, "linear.weight")[1]
    condition = shape_of(source, "blocks.0.0.bn1.gain.weight")
    if "shared.weight" in source:
        config.data.num_classes, generator.class_embedding_dim = shape_of(source, "shared.weight")
        generator.hierarchical = condition[1] != generator.class_embedding_dim
    else:
        config.data.num_classes = condition[0]
        generator.conditioning, generator.hierarchical = "per_class", False
    generator.latent_dim = chunk * (len(found) + 1) if generator.hierarchical else chunk
    generator.norm.biased = any(name.endswith("accumulation_counter") for name in source)  # its own batch norm
    sizes = [START * 2 ** (block + 1) for block in _attention_blocks(source)]
    if sizes:
        generator.context, generator.context_resolutions = "attention", sizes
        common = [size for size in sizes if size < resolution]
        if common:
            config.discriminator.context, config.discriminator.context_resolutions = "attention", common
    return config


def _discriminator_config(source: Mapping[str, Tensor]) -> Config:
    found = _block_channels(source)
    supported = "4 (32 px) to 8 (512 px) are supported"
    resolution, channels = resolution_and_width(found, DISCRIMINATOR_WIDTHS, "discriminator", supported)
    config = _base_config(resolution, channels, source)
    config.data.num_classes = shape_of(source, "embed.weight")[0]
    attention = _attention_blocks(source)
    still = len(found) - (2 if resolution == 32 else 1)
    if attention and attention[-1] >= still:
        raise ConversionError(
            f"the discriminator has attention after block {attention[-1]}, which keeps the resolution; only blocks 0 "
            f"to {still - 1} can carry a context block"
        )
    sizes = [resolution // 2 ** (block + 1) for block in attention]
    if sizes:
        for network in (config.generator, config.discriminator):
            network.context, network.context_resolutions = "attention", list(sizes)
    return config


def _rules(network: Network, config: Config) -> list[Rule]:
    section = config.generator if network == "generator" else config.discriminator
    rules = [Rule(r".*\.sv\d+", None), Rule(r".*(accumulation_counter|num_batches_tracked)", None)]
    for part, ours in (("conv1", "conv1"), ("conv2", "conv2"), ("conv_sc", "shortcut")):
        rules += _spectral_rules(rf"blocks\.(\d+)\.0\.{part}", rf"blocks.\1.{ours}")
    for size in section.context_resolutions if section.context == "attention" else []:
        ratio = size // START if network == "generator" else config.resolution // size
        source, target = rf"blocks\.{ratio.bit_length() - 2}\.1", f"contexts.{size}"
        for part, ours in (("theta", "query"), ("phi", "key"), ("g", "value"), ("o", "output")):
            rules += _spectral_rules(rf"{source}\.{part}", f"{target}.{ours}")
        rules.append(Rule(rf"{source}\.gamma", f"{target}.gate"))
    rules += _spectral_rules("linear", "linear")
    if network == "discriminator":
        return rules + _spectral_rules("embed", "class_embedding")
    return rules + _generator_rules(config)


def _generator_rules(config: Config) -> list[Rule]:
    rules = [
        Rule(r"shared\.weight", "class_embedding.weight"),
        Rule(r"output_layer\.0\.(gain|bias)", r"output_norm.\1"),
        *_statistics_rules(r"output_layer\.0", "output_norm"),
        *_spectral_rules(r"output_layer\.2", "output_conv"),
    ]
    for index in (1, 2):
        source, target = rf"blocks\.(\d+)\.0\.bn{index}", rf"blocks.\1.norm{index}"
        rules += _statistics_rules(source, target)
        if config.generator.conditioning == "shared":
            rules += _spectral_rules(rf"{source}\.gain", f"{target}.gain")
            rules += _spectral_rules(rf"{source}\.bias", f"{target}.bias")
        else:
            # Its tables hold gains on top of 1, without spectral normalisation.
            rules.append(Rule(rf"{source}\.gain\.weight", f"{target}.gamma", lambda gain: 1.0 + gain))
            rules.append(Rule(rf"{source}\.bias\.weight", f"{target}.beta"))
    return rules


def _spectral_rules(source: str, target: str) -> list[Rule]:
    return [
        Rule(rf"{source}\.weight", f"{target}.weight"),
        Rule(rf"{source}\.bias", f"{target}.bias"),
        Rule(rf"{source}\.u0", f"{target}.vector", lambda vector: vector.flatten()),
    ]


def _statistics_rules(source: str, target: str) -> list[Rule]:
    """Find moments in the norm itself, or in a child ``bn`` with its own or the cross-replica batch norm."""
    return [
        Rule(rf"{source}\.(?:bn\.)?(?:stored|running)_mean", f"{target}.running_mean"),
        Rule(rf"{source}\.(?:bn\.)?(?:stored|running)_var", f"{target}.running_var"),
    ]
