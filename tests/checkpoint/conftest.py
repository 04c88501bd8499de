"""Share one step in training and its checkpoint among the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import forget_accelerator, small_config
from support.training_steps import trained_step

from hamgan.checkpoint import (
    Progress,
    save_checkpoint,
)
from hamgan.config import Config
from hamgan.training.step import GanStep


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return small_config(tmp_path_factory.mktemp("config"), "data.num_classes=15")


@pytest.fixture(scope="module")
def accelerator() -> Iterator[Accelerator]:
    forget_accelerator()
    yield Accelerator(cpu=True, mixed_precision="no")
    forget_accelerator()


@pytest.fixture(scope="module")
def saved(config: Config, accelerator: Accelerator, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GanStep]:
    """Save a checkpoint after 16 images; return its path and the step that it was saved from."""
    torch.manual_seed(0)
    step = trained_step(config, accelerator)
    folder = tmp_path_factory.mktemp("saved")
    return save_checkpoint(folder, step, Progress(16, 2, 1.5, fid={"00000000.008": 30.0})), step
