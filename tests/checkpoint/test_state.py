"""Check that a checkpoint restores everything or says why not, and that a failed save leaves the older ones."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from support.small_runs import (
    assert_same_state,
    largest_file,
    small_config,
)
from support.training_steps import copies, trained_step

from hamgan.checkpoint import (
    Progress,
    load_checkpoint,
    save_checkpoint,
)
from hamgan.checkpoint.state import state_tensors
from hamgan.config import Config
from hamgan.errors import CheckpointError
from hamgan.networks import build_networks
from hamgan.training.inputs import GeneratorBatch
from hamgan.training.step import GanStep


def test_a_checkpoint_restores_everything(
    saved: tuple[Path, GanStep], config: Config, accelerator: Accelerator
) -> None:
    path, step = saved
    torch.manual_seed(1)
    other = trained_step(config, accelerator)
    progress = load_checkpoint(path, other)
    assert progress == Progress(16, 2, 1.5, fid={"00000000.008": 30.0})
    tensors = state_tensors(other)
    assert_same_state(state_tensors(step), tensors)
    prefixes = {name.split(".")[0] for name in tensors}
    assert {"generator", "discriminator", "average", "generator_optimizer", "logit_averages", "sums"} <= prefixes
    assert other.metrics.counts == step.metrics.counts == {"g_loss": 1}


def test_a_restored_optimiser_takes_the_same_next_step(
    saved: tuple[Path, GanStep], config: Config, accelerator: Accelerator
) -> None:
    path, _ = saved
    steps = [GanStep(*build_networks(config), config.train, accelerator) for _ in range(2)]
    for step in steps:
        load_checkpoint(path, step)
        torch.manual_seed(2)
        step.generator_step([GeneratorBatch(torch.randn(4, 16), torch.arange(4))])
    first, second = map(state_tensors, steps)
    assert_same_state(first, second)
    name = "generator.linear.weight"
    assert not torch.equal(first[name], load_file(path / "state.safetensors")[name])
    assert first["generator_optimizer.linear.weight.step"].item() == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"sha256": 3}',
        "\x00",
        '{"sha256": "SUM"}',
        '{"sha256": "SUM", "scaler": 0, "progress": {"x": 1}}',
    ],
)
def test_a_damaged_state_file_is_a_sentence(
    saved: tuple[Path, GanStep], config: Config, accelerator: Accelerator, tmp_path: Path, text: str
) -> None:
    (path,) = copies(saved[0], tmp_path, "00000001")
    digest = json.loads((path / "state.json").read_text())["sha256"]
    (path / "state.json").write_text(text.replace("SUM", digest))
    with pytest.raises(CheckpointError, match="00000001"):
        load_checkpoint(path, GanStep(*build_networks(config), config.train, accelerator))


def test_a_checkpoint_of_another_network_is_a_sentence(
    saved: tuple[Path, GanStep], tmp_path: Path, accelerator: Accelerator
) -> None:
    wider = small_config(tmp_path, "data.num_classes=15", "generator.channels=4")
    step = GanStep(*build_networks(wider), wider.train, accelerator)
    with pytest.raises(CheckpointError, match=r"of another network: .*size mismatch"):
        load_checkpoint(saved[0], step)


def test_a_failed_save_leaves_the_older_checkpoint_and_no_leftovers(
    saved: tuple[Path, GanStep], tmp_path: Path
) -> None:
    (path,) = copies(saved[0], tmp_path, "00000000.016")
    before = (path / "state.safetensors").read_bytes()
    for limit in (0, 1000, len(before) - 1):
        with (
            largest_file(limit),
            pytest.raises(CheckpointError, match=r"File too large.*older checkpoints are untouched"),
        ):
            save_checkpoint(tmp_path, saved[1], Progress(16))
    assert (path / "state.safetensors").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["00000000.016"]
