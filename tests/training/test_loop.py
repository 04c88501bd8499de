"""Test the loop: the same run after stops and kills, changes allowed on resume, files that a run leaves."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.paths import ROOT
from support.small_runs import (
    assert_same_state,
    last_state,
    rows,
    run_small,
    small_config,
    start,
    write_config,
)
from torch.utils._python_dispatch import TorchDispatchMode

from hamgan.checkpoint import list_checkpoints
from hamgan.config import load_config
from hamgan.errors import CheckpointError, Diverged, Stopped
from hamgan.sampling import load_generator
from hamgan.training.batches import Batches
from hamgan.training.loop import Training

pytestmark = pytest.mark.usefixtures("new_accelerator")

# Rows are means over three steps and checkpoints come every two, so that a restart falls between two rows.
UNEVEN = ["log.every_kimg=0.024", "train.total_kimg=0.048", "train.augment=[color,cutout]", "data.flip=true"]
UNEVEN += ["train.lecam=0.1", "log.samples_every_kimg=0.024"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("uninterrupted"), *UNEVEN)


def signal_after(training: Training, images: int, number: signal.Signals) -> None:
    """Send this process a signal from inside the step that ends at a number of images."""
    update = training.step.update_average

    def update_and_signal(images_seen: int) -> None:
        update(images_seen)
        if images_seen == images:
            signal.raise_signal(number)

    training.step.update_average = update_and_signal  # type: ignore[method-assign]


def assert_same_run(first: Path, second: Path) -> None:
    assert rows(first) == rows(second)
    assert_same_state(last_state(first), last_state(second))
    generators = [load_file(run / "generator.safetensors") for run in (first, second)]
    assert_same_state(*generators)
    for name in ("samples/00000000.024.png", "samples/00000000.048.png", "classes.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_same_seed_is_the_same_run(uninterrupted: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)
    torch.rand(100)
    assert_same_run(uninterrupted, run_small(tmp_path, *UNEVEN))


def test_another_seed_is_another_run(uninterrupted: Path, tmp_path: Path) -> None:
    other = run_small(tmp_path, *UNEVEN, "seed=1", "train.total_kimg=0.024")
    assert rows(other)[0]["d_loss"] != rows(uninterrupted)[0]["d_loss"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_run_stopped_by_a_signal_goes_on_as_if_nothing_had_been(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    training = Training(small_config(tmp_path, *UNEVEN))
    signal_after(training, 32, number)
    with pytest.raises(Stopped, match=r"checkpoint saved at 0.032 kimg; the same command resumes"):
        training.run()
    assert signal.getsignal(number) == before
    assert_same_run(uninterrupted, run_small(tmp_path, *UNEVEN))


def test_a_killed_run_goes_on_from_its_last_checkpoint(uninterrupted: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = [f"--{override}" for override in [*UNEVEN, f"run_dir={tmp_path / 'run'}"]]
    process = start(ROOT / "scripts/train.py", "--config", config, *options, log=tmp_path / "log.txt")
    try:
        deadline = time.monotonic() + 200
        while not list_checkpoints(tmp_path / "run/checkpoints") and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    leftover = tmp_path / "run/checkpoints/.00000000.032.99.tmp"
    leftover.mkdir(exist_ok=True)
    assert_same_run(uninterrupted, run_small(tmp_path, *UNEVEN))
    assert not leftover.exists()


def test_a_damaged_checkpoint_is_passed_over_and_made_again(uninterrupted: Path, tmp_path: Path) -> None:
    run = run_small(tmp_path, *UNEVEN)
    for path in list_checkpoints(run / "checkpoints")[1:]:
        (path / "state.safetensors").write_bytes((path / "state.safetensors").read_bytes()[:-10])
    assert_same_run(uninterrupted, run_small(tmp_path, *UNEVEN))
    for path in list_checkpoints(run / "checkpoints"):
        (path / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        run_small(tmp_path, *UNEVEN)


def test_a_finished_run_has_nothing_to_do_and_a_longer_one_goes_on(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_small(tmp_path, "train.total_kimg=0.024", *(item for item in UNEVEN if "total" not in item))
    before = last_state(run)
    run_small(tmp_path, "train.total_kimg=0.024", *(item for item in UNEVEN if "total" not in item))
    assert "already at 0.024 of 0.024 kimg; nothing to do" in capsys.readouterr().err
    assert_same_state(before, last_state(run))
    assert_same_run(uninterrupted, run_small(tmp_path, *UNEVEN))


def test_a_run_leaves_what_the_design_says(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "classes.json",
        "config.yaml",
        "environment.jsonl",
        "generator.safetensors",
        "metrics.jsonl",
        "samples",
    }
    assert [path.name for path in list_checkpoints(uninterrupted / "checkpoints")] == ["00000000.032", "00000000.048"]
    config = load_config(uninterrupted / "config.yaml")
    classes = json.loads((uninterrupted / "classes.json").read_text())
    assert config.data.num_classes == len(classes) == 12
    with Image.open(uninterrupted / "samples/00000000.024.png") as sheet:
        assert sheet.height > 2 * 96  # two rows of 32 pixels, enlarged until one sees them
    row = rows(uninterrupted)[-1]
    expected = {"kimg", "d_loss", "g_loss", "logits_real", "logits_fake", "d_gradient_norm", "g_gradient_norm"}
    assert expected | {"g_lr", "d_lr", "g_gate_16", "d_gate_16", "g_sigma_max", "d_sigma_mean"} <= set(row)
    assert all(0.0 < row[f"{letter}_reconstruction_16"] < 1.0 for letter in "gd")


def test_runs_checkpoints_and_files_sample_alike(uninterrupted: Path) -> None:
    """Load the newest state from a run folder, its checkpoint and its generator file."""
    checkpoint = uninterrupted / "checkpoints/00000000.048"
    images = []
    for path in (uninterrupted, checkpoint, uninterrupted / "generator.safetensors"):
        generator = load_generator(path, device="cpu")
        assert (generator.kimg, generator.class_names[2]) == (0.048, "cat")  # type: ignore[index]
        images.append(generator([0, 1], ["cat"], output="tensor"))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    older = load_generator(uninterrupted / "checkpoints/00000000.032", device="cpu")
    assert not torch.equal(older([0, 1], ["cat"], output="tensor"), images[0])


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """Check weights at every save: losses are looked at only when a row is due, and a checkpoint may come before."""
    with pytest.raises(
        Diverged, match=r"weights of the generator are not finite at 0\.016 kimg; there is no checkpoint"
    ):
        run_small(tmp_path, "train.discriminator_lr=1e38", "log.every_kimg=1")
    assert list_checkpoints(tmp_path / "run/checkpoints") == []
    assert not (tmp_path / "run/generator.safetensors").exists()


def test_a_generator_file_of_other_weights_is_renewed_on_resume(tmp_path: Path) -> None:
    """Resume after a kill between a checkpoint (or a return to an older one) and the generator file."""
    run = run_small(tmp_path, "train.total_kimg=0.016")
    file = run / "generator.safetensors"
    old = file.read_bytes()
    run_small(tmp_path, "train.total_kimg=0.032")
    expected = load_file(file)
    file.unlink()  # tensors that were read from it still see its bytes
    file.write_bytes(old)
    run_small(tmp_path, "train.total_kimg=0.032")
    assert_same_state(load_file(file), expected)
    assert load_generator(run, device="cpu").kimg == 0.032


class CountReads(TorchDispatchMode):
    """Count the single values that leave a tensor: on a GPU the host waits for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func == torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_and_its_row_read_no_single_values(tmp_path: Path) -> None:
    training = Training(small_config(tmp_path, "log.every_kimg=0.008", "checkpoint.every_kimg=0"))
    counted = CountReads()
    make = training.make_step

    def make_counted(batches: Batches) -> None:
        with counted:
            make(batches)

    training.make_step = make_counted  # type: ignore[method-assign]
    training.run()
    assert len(rows(training.config.folder)) == 5
    assert counted.reads == 0
