"""Map other projects' tensor names to ours by rules, and check that nothing is left over."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from hamgan.config import Config, validate
from hamgan.errors import ConfigError, ConversionError
from hamgan.networks import Discriminator, Generator

Network = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Rule:
    """Map a source name that matches the whole ``pattern`` to ``target``.

    ``target`` may refer to groups (``\\1``); None marks a tensor that the source keeps only for logging. ``change``
    converts the source's layout to ours.
    """

    pattern: str
    target: str | None
    change: Callable[[Tensor], Tensor] = lambda tensor: tensor


@dataclass
class Conversion:
    """Hold one converted network, and what became of every tensor of its source."""

    network: Network
    config: Config
    state: dict[str, Tensor]
    mapped: dict[str, str] = field(default_factory=dict)
    """Source name -> our name."""
    ignored: list[str] = field(default_factory=list)
    """Source tensors that a network does not need (logged sigmas, optimiser slots, counters)."""
    unused: list[str] = field(default_factory=list)
    """Source tensors that match no rule."""
    missing: list[str] = field(default_factory=list)
    """Our tensors that the source lacks; they keep their initial values."""
    assumed: list[str] = field(default_factory=list)
    """Configuration keys that are not visible in names and shapes; their values are the reference's."""


def apply_rules(source: Mapping[str, Tensor], rules: list[Rule], conversion: Conversion) -> None:
    """Fill the conversion from the source, by the first rule that matches each name."""
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    for name, tensor in source.items():
        for pattern, rule in compiled:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            target = None if rule.target is None else match.expand(rule.target)
            if target is None:
                conversion.ignored.append(name)
            elif target in conversion.state:  # a second tensor for the same place
                conversion.unused.append(name)
            else:
                conversion.state[target] = rule.change(full_precision(tensor)).contiguous()
                conversion.mapped[name] = target
            break
        else:
            conversion.unused.append(name)


def full_precision(tensor: Tensor) -> Tensor:
    """Detach a tensor and make it float32, unless it is float64."""
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def empty_network(network: Network, config: Config) -> nn.Module:
    """Build the network of a configuration on the meta device: names and shapes without memory."""
    classes = config.data.num_classes or 1
    with torch.device("meta"):
        if network == "generator":
            return Generator(config.generator, config.resolution, classes)
        return Discriminator(config.discriminator, config.resolution, classes)


def check_fit(conversion: Conversion, *, allow_leftovers: bool = False) -> None:
    """Compare the converted state with our network; raises ConversionError for what is left over or does not fit.

    With ``allow_leftovers`` unknown tensors are dropped and missing ones keep their initial values; a wrong shape is
    an error in any case.
    """
    try:
        validate(conversion.config)
    except ConfigError as error:
        raise ConversionError(f"these weights fit no configuration: {error}") from error
    ours = empty_network(conversion.network, conversion.config).state_dict()
    for name, tensor in conversion.state.items():
        if name in ours and tensor.shape != ours[name].shape:
            source = next(key for key, value in conversion.mapped.items() if value == name)
            raise ConversionError(
                f"tensor `{source}` has the shape {list(tensor.shape)} in our layout, but a {conversion.network} of "
                f"{conversion.config.resolution} px and {conversion.config.data.num_classes} classes "
                f"has {list(ours[name].shape)} at `{name}`: another architecture, or a part of one"
            )
    targets = {value: key for key, value in conversion.mapped.items()}
    for name in [key for key in conversion.state if key not in ours]:
        conversion.unused.append(targets[name])
        del conversion.mapped[targets[name]], conversion.state[name]
    conversion.missing = [name for name in ours if name not in conversion.state]
    if not allow_leftovers:
        _refuse("does not use", conversion.unused, conversion)
        _refuse("misses", conversion.missing, conversion)


def _refuse(what: str, names: list[str], conversion: Conversion) -> None:
    if names:
        shown = ", ".join(f"`{name}`" for name in names[:4]) + (" ..." if len(names) > 4 else "")
        raise ConversionError(
            f"the {conversion.network} that these weights describe {what} {len(names)} tensors: {shown}; the file is "
            f"incomplete or of another architecture (--allow-leftovers converts what fits)"
        )


def shape_of(source: Mapping[str, Tensor], name: str) -> torch.Size:
    """Return the shape of a tensor that no network can do without; raises ConversionError if it is missing."""
    if name not in source:
        raise ConversionError(f"the weights have no tensor `{name}`; the file is incomplete or of another architecture")
    return source[name].shape


def resolution_and_width(
    found: Sequence[int], widths: Mapping[int, tuple[int, ...]], network: Network, expected: str
) -> tuple[int, int]:
    """Return resolution (pixels) and width c of a network from its blocks' channels: found = c * multipliers.

    ``widths`` maps resolutions to multipliers, ``expected`` describes the possible numbers of blocks for messages.
    Raises ConversionError if nothing fits.
    """
    resolutions = {len(multipliers): resolution for resolution, multipliers in widths.items()}
    if len(found) not in resolutions:
        raise ConversionError(f"the {network} has {len(found)} blocks; {expected}")
    resolution = resolutions[len(found)]
    multipliers = widths[resolution]
    width = found[-1] // multipliers[-1]
    if not width or list(found) != [width * multiplier for multiplier in multipliers]:
        raise ConversionError(
            f"the {network}'s blocks have {list(found)} channels; a {network} of {resolution} px has multiples "
            f"{list(multipliers)} of one width, so this is another architecture or resolution"
        )
    return resolution, width
