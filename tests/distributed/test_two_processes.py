"""Check that two processes started by ``accelerate launch`` train the run of one process.

A bias in front of a batch norm has no influence, so its gradient is rounding noise, and Adam scales noise that is
larger than its epsilon up to whole steps: in this network gradients are near 80, their noise near 1e-5, and with the
default epsilon of 1e-6 such biases drift by up to a learning rate per step, differently in every order of summation.
The stored mean behind a bias follows it. The case with the default epsilon bounds them by Adam's steps; the cases with
an epsilon above the noise compare every tensor.

Most of it is torch's: its float32 batch norm of one process moves the gate of a Hamburger, 1.4e-4 after five steps, by
4e-4 of it against moments and products in float64, this project's of two processes by 1.3e-4; with float64 in both the
gates agree to 5e-5. All weights of a network together agree to 4e-6.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.launched_runs import CASES
from support.paths import ROOT
from support.small_runs import LAUNCH, last_state, python, rows, run_small
from torch import Tensor

NETWORKS = ("generator.", "discriminator.", "average.")
ROUNDING = 4e-9
"""Distance of weights by rounding: Adam moves them by a tenth (lr / epsilon) of the 4e-8 by which gradients differ.

It matters for gates near 0 alone. In the case of finite differences, which magnify rounding, one of 9e-6 differs by
1.6e-9 in every second run of the same code.
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all cases with two processes (gloo: no GPU is visible to them); return their folder."""
    folder = tmp_path_factory.mktemp("launched")
    result = python(*LAUNCH, ROOT / "tests/support/launched_runs.py", folder)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "batch     8 images = 2 process(es) x 1 accumulation x 4" in result.stderr
    # Gradients lie in memory as DDP wants them, and it is called as this torch wants it.
    assert "Warning" not in result.stderr, result.stderr
    return folder


def distance(first: Tensor, second: Tensor) -> float:
    """Return the relative L2 norm of the difference."""
    first, second = first.double(), second.double()
    return float((first - second).norm() / first.norm().clamp_min(1e-12))


def without_influence(name: str) -> bool:
    """Return whether the name is that of a bias in front of a batch norm, or of the stored mean behind one."""
    in_generator = name.startswith(("generator.", "average."))
    return in_generator and (name.endswith(("conv1.bias", "conv2.bias", "shortcut.bias", "running_mean")))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(launched: Path, tmp_path: Path, case: str) -> None:
    alone, together = run_small(tmp_path, *CASES[case]), launched / case / "run"
    for ours, theirs in zip(rows(alone), rows(together), strict=True):
        for name in ("d_loss", "g_loss", "logits_real", "logits_fake", "d_gradient_norm", "g_gradient_norm"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), (ours["kimg"], name)
    states = last_state(alone), last_state(together)
    assert states[0].keys() == states[1].keys()
    for name in (name for name in states[0] if name.startswith(NETWORKS)):
        first, second = states[0][name], states[1][name]
        if case == "default" and without_influence(name):
            steps = 5 * 1e-4
            assert (first - second).abs().max() < 2 * steps, name
        else:
            largest = (1e-3 if case == "default" else 1e-4) * float(first.double().norm())
            assert float((first.double() - second.double()).norm()) < largest + ROUNDING, name
    for network in NETWORKS:
        names = [name for name in states[0] if name.startswith(network) and not without_influence(name)]
        whole = [torch.cat([state[name].flatten().double() for name in names]) for state in states]
        assert distance(whole[0], whole[1]) < 1e-5, network


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_run_goes_on(launched: Path) -> None:
    folder = launched / "resumed"
    assert [(folder / f"stopped{rank}.txt").read_text() for rank in range(2)] == ["16", "16"]
    uninterrupted, resumed = launched / "default/run", folder / "run"
    for ours, theirs in zip(rows(uninterrupted), rows(resumed), strict=True):
        assert theirs["d_loss"] == pytest.approx(ours["d_loss"], rel=1e-6)
    name = "generator.safetensors"
    first, second = load_file(uninterrupted / name), load_file(resumed / name)
    assert all(distance(first[key], second[key]) < 1e-6 for key in first)
