"""Divide a segmenter's parameters into groups by weight decay and learning rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from hamgan.segmentation.schema import TrainConfig

HEADS = ("head.", "auxiliary.")


@dataclass(frozen=True)
class Group:
    """Hold parameters by name with their common settings."""

    name: str
    lr_factor: float
    weight_decay: float
    parameters: Mapping[str, nn.Parameter]


def parameter_groups(network: nn.Module, train: TrainConfig) -> list[Group]:
    """Divide the trained parameters by encoder and heads, with and without weight decay.

    A parameter whose name matches a pattern in ``train.no_decay`` has no weight decay. The references also choose by
    name, not by kind of layer: norms of a VAN have no decay, but norms of the head (named ``gn`` there), layer scales
    and biases have.
    """
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            part = "heads" if name.startswith(HEADS) else "encoder"
            decay = "no decay" if any(fnmatchcase(name, f"*{word}*") for word in train.no_decay) else "decay"
            found.setdefault(f"{part}, {decay}", {})[name] = parameter
    return [
        Group(
            name,
            train.head_lr_factor if name.startswith("heads") else 1.0,
            train.weight_decay if name.endswith(", decay") else 0.0,
            parameters,
        )
        for name, parameters in sorted(found.items())
    ]


def describe_groups(groups: list[Group], train: TrainConfig) -> list[str]:
    """Return a table of name, tensors, parameters, learning rate and weight decay, as lines of text."""
    rows = [("group", "tensors", "parameters", "lr", "weight decay")]
    for group in groups:
        count = sum(parameter.numel() for parameter in group.parameters.values())
        rate, decay = f"{train.lr * group.lr_factor:g}", f"{group.weight_decay:g}"
        rows.append((group.name, str(len(group.parameters)), f"{count:,}", rate, decay))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{cell:>{width}}" if column else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def make_optimizer(groups: list[Group], train: TrainConfig) -> torch.optim.Optimizer:
    """Make AdamW or SGD for the groups; ``lr_factor`` of each is its factor on the learning rate."""
    settings = [
        {
            "params": list(group.parameters.values()),
            "weight_decay": group.weight_decay,
            "lr": train.lr * group.lr_factor,
            "lr_factor": group.lr_factor,
        }
        for group in groups
    ]
    if train.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=train.lr, momentum=float(train.momentum), fused=True)
    betas = (float(train.beta1), float(train.beta2))
    return torch.optim.AdamW(settings, lr=train.lr, betas=betas, fused=True)
