"""Make steps whose optimisers have moved, and copies of checkpoints."""

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator

from hamgan.config import Config
from hamgan.networks import build_networks
from hamgan.training.inputs import GeneratorBatch
from hamgan.training.step import GanStep


def trained_step(config: Config, accelerator: Accelerator) -> GanStep:
    """Return a step whose optimiser of G has moved."""
    step = GanStep(*build_networks(config), config.train, accelerator)
    step.generator_step([GeneratorBatch(torch.randn(4, 16), torch.arange(4))])
    step.update_average(8)
    return step


def copies(checkpoint: Path, folder: Path, *names: str) -> list[Path]:
    """Copy a checkpoint to other names."""
    return [Path(shutil.copytree(checkpoint, folder / name)) for name in names]
