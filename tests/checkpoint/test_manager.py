"""Check that the manager saves each position once, with its generator, never broken weights, and reports failures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import assert_same_state, largest_file, small_config
from support.training_steps import trained_step

from hamgan.checkpoint import CheckpointManager, Progress, list_checkpoints, load_generator_file
from hamgan.errors import CheckpointError, Collapse

NAMES = [f"class {index}" for index in range(15)]


@pytest.fixture
def manager(tmp_path: Path, accelerator: Accelerator) -> Iterator[CheckpointManager]:
    """Return a manager with one trained step at 16 images, which collects its warnings in a list."""
    config = small_config(tmp_path, "data.num_classes=15", "checkpoint.keep_last=2")
    warnings: list[str] = []
    made = CheckpointManager(config, NAMES, trained_step(config, accelerator), Progress(16, 2), warnings.append)
    made.warnings = warnings  # type: ignore[attr-defined]
    yield made
    made.close()


def names(manager: CheckpointManager) -> list[str]:
    return [path.name for path in list_checkpoints(manager.config.folder / "checkpoints")]


def test_a_position_is_saved_once_with_its_generator_and_older_ones_go(manager: CheckpointManager) -> None:
    for images in (16, 16, 24, 32):
        manager.progress.images = images
        manager.save()
    manager.wait_until_written(strict=True)
    assert names(manager) == ["00000000.024", "00000000.032"]
    network, config, header = load_generator_file(manager.config.folder / "generator.safetensors")
    assert (header["kimg"], header["class_names"], config) == (0.032, NAMES, manager.config)
    assert_same_state(dict(network.state_dict()), dict(manager.step.sampler.state_dict()))
    before = (manager.config.folder / "checkpoints/00000000.032").stat().st_ino
    manager.save()
    manager.wait_until_written(strict=True)
    assert (manager.config.folder / "checkpoints/00000000.032").stat().st_ino == before


def test_what_is_saved_is_the_moment_of_saving(manager: CheckpointManager) -> None:
    manager.save()
    with torch.no_grad():
        for parameter in manager.step.sampler.parameters():
            parameter.zero_()
    manager.wait_until_written(strict=True)
    network = load_generator_file(manager.config.folder / "generator.safetensors")[0]
    assert network.linear.weight.abs().sum() > 0


def test_the_same_position_of_another_stream_is_saved_anew(manager: CheckpointManager) -> None:
    with torch.no_grad():
        manager.step.sampler.linear.weight[0, 0] = float("nan")
    with pytest.raises(Collapse, match="weights of the average are not finite"):
        manager.save()
    with torch.no_grad():
        manager.step.sampler.linear.weight[0, 0] = 0.0
    manager.save()
    assert names(manager) == []
    manager.progress.rollbacks.append({"from_kimg": 0.016, "to": "x", "reason": "", "stream": 1, "lr_factor": 1.0})
    manager.save()
    manager.wait_until_written(strict=True)
    assert names(manager) == ["00000000.016"]


@pytest.mark.parametrize("on_full_disk", ["stop", "continue"])
def test_a_disk_that_takes_no_checkpoint_is_an_error_or_a_warning(
    manager: CheckpointManager, on_full_disk: str
) -> None:
    manager.config.checkpoint.on_full_disk = on_full_disk  # type: ignore[assignment]
    with largest_file(1000):
        manager.save()
        assert manager._writing is not None
        manager._writing.exception(timeout=60)
    assert manager.failed
    if on_full_disk == "stop":
        with pytest.raises(CheckpointError, match=r"could not write .*00000000\.016"):
            manager.wait_until_written(strict=False)
    else:
        manager.wait_until_written(strict=False)
        (warning,) = manager.warnings  # type: ignore[attr-defined]
        assert warning.endswith("; the run goes on and tries again at the next checkpoint")
    assert not manager.failed
    assert names(manager) == []
    manager.save()  # at the same position, as at the end of a run
    manager.wait_until_written(strict=True)
    assert names(manager) == ["00000000.016"]


def test_with_strict_the_last_checkpoint_must_be_written(manager: CheckpointManager) -> None:
    manager.config.checkpoint.on_full_disk = "continue"
    with largest_file(1000):
        manager.save()
        with pytest.raises(CheckpointError, match="older checkpoints are untouched"):
            manager.wait_until_written(strict=True)


def test_the_generator_file_is_renewed_only_when_it_is_of_another_position(manager: CheckpointManager) -> None:
    path = manager.config.folder / "generator.safetensors"
    path.parent.mkdir()
    manager.renew_weights()
    first = path.stat().st_ino
    manager.renew_weights()
    assert path.stat().st_ino == first
    manager.progress.images = 8
    manager.renew_weights()
    assert load_generator_file(path)[2]["kimg"] == 0.008
    path.write_bytes(b"damaged")
    manager.renew_weights()
    assert load_generator_file(path)[2]["kimg"] == 0.008
