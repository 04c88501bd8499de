"""What the subcommands share: the options of a configuration, reading it, and Accelerate as training sets it up."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from hamgan.config import Config, load_config
from hamgan.errors import ConfigError
from hamgan.training.setup import make_accelerator

CLASSES = 1000
"""Of a configuration that names no number; training would read it from the data."""


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --set."""
    parser.add_argument("--config", type=Path, help="YAML file (default: the default configuration, 1000 classes)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the configuration")


def read_config(file: Path | None, overrides: Sequence[str]) -> Config:
    """A configuration with a number of classes. Raises ConfigError as `load_config` does."""
    config = load_config(file, list(overrides))
    if config.data.num_classes is None:
        config = replace(config, data=replace(config.data, num_classes=CLASSES))
    return config


def read_step_config(file: Path | None, overrides: Sequence[str]) -> Config:
    """A configuration whose step `make_workload` can draw; else ConfigError."""
    config = read_config(file, overrides)
    if config.train.loss == "relativistic":
        raise ConfigError("train.loss: relativistic pairs images, which this benchmark does not draw; take another")
    return config


def benchmark_accelerator(config: Config, device: torch.device) -> Accelerator:
    """As training makes it; on the CPU of a machine with a GPU it needs a word with Accelerate."""
    if device.type == "cpu" and torch.accelerator.is_available():
        return Accelerator(cpu=True)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    threads = config.train.threads or torch.get_num_threads()
    return make_accelerator(replace(config, train=replace(config.train, threads=threads)))


def precision_of(accelerator: Accelerator) -> str:
    """fp32, bf16 or fp16."""
    return {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
