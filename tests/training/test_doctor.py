"""Check that `hamgan doctor` tells the truth about this machine and gives away no secret."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.small_runs import environment

from hamgan.training.doctor import describe


def run_doctor(**variables: str) -> dict[str, str]:
    """Return the lines of the command, by their first word."""
    command, own = [sys.executable, "-m", "hamgan", "doctor"], environment() | variables
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


def test_it_tells_versions_devices_and_what_there_is(tmp_path: Path) -> None:
    secrets = {"HF_TOKEN": "hf_secret", "WANDB_API_KEY": "0123456789secret"}
    found = run_doctor(OMP_NUM_THREADS="3", TORCH_HOME=str(tmp_path), **secrets)
    assert f"torch {torch.__version__.partition('+')[0]}" in found["packages"]
    assert found["system"].endswith(f"Python {sys.version.split()[0]}")
    assert "threads for small networks such as the demo's: 1, for large ones: 3, cores: 3" in found["training"]
    assert found["devices"].startswith("CPU only")
    assert found["data"] == "photographs are here, 12 classes"
    assert found["features"].startswith("no Inception weights yet")
    assert found["wandb"] == "logged in"
    assert "OMP_NUM_THREADS=3" in found["environment"]
    assert "secret" not in str(found)
    assert list(tmp_path.rglob("*.pth")) == []


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("compiling on a GPU takes Triton")
    if compiler := shutil.which("g++"):
        assert describe()["compile"] == f"train.compile has {compiler}"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert describe()["compile"] == "train.compile would fail: there is no C++ compiler"
    free = int(describe()["disk"].split()[0].replace(",", ""))
    assert free == pytest.approx(shutil.disk_usage(os.curdir).free / 2**30, abs=2)
