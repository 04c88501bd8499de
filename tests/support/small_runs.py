"""Train runs small enough for tests: two channels at 32 px on the photographs, here or in processes of their own."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from support.paths import ROOT
from torch import Tensor

from hamgan.config import Config, load_config
from hamgan.training.loop import Training

VALUES: dict[str, Any] = {
    "resolution": 32,
    "generator": {
        "channels": 2,
        "latent_dim": 16,
        "class_embedding_dim": 8,
        "context_resolutions": [16],
        "hamburger": {"rank": 4},
    },
    "discriminator": {"channels": 2, "context_resolutions": [16], "hamburger": {"rank": 4}},
    "data": {"source": "photos"},
    "train": {"total_kimg": 0.04, "batch_size": 8, "ema_decay": 0.9, "precision": "fp32", "threads": 1},
    "log": {"every_kimg": 0.008, "samples_every_kimg": 0, "sample_classes": 2, "samples_per_class": 2},
    "checkpoint": {"every_kimg": 0.016},
}


def write_config(folder: Path) -> Path:
    path = folder / "small.yaml"
    own = path.with_suffix(f".{os.getpid()}")  # several processes of a run write the same
    own.write_text(yaml.safe_dump(VALUES))
    return own.replace(path)


def small_config(folder: Path, *overrides: str) -> Config:
    """Return the small configuration with its run folder inside ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return load_config(write_config(folder), [f"run_dir={folder / 'run'}", *overrides])


def forget_accelerator() -> None:
    """Reset Accelerate, which keeps its precision and processes for the life of a process, for the next run."""
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    GradientState._reset_state()


def run_small(folder: Path, *overrides: str) -> Path:
    """Train in this process to the end; return the run folder."""
    config = small_config(folder, *overrides)
    forget_accelerator()
    try:
        Training(config).run()
    finally:
        forget_accelerator()
    return config.folder


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Keep files from growing beyond this many bytes: a write fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def environment() -> dict[str, str]:
    """Return variables for new processes: this checkout, one thread, no GPU, no tracker that asks for a login."""
    return os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
    }


def python(*arguments: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run this Python on a script or module in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*arguments: str | Path, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start this Python, with further environment variables, and leave it running, its output in ``log``."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment() | variables,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            # A shell starts jobs in the background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def rows(run: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.jsonl without values that depend on a clock."""
    clock = ("images_per_second", "seconds", "seconds_left", "evaluation_seconds", "evaluation_share")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]


def last_state(run: Path) -> dict[str, Tensor]:
    """Return all tensors of the newest checkpoint."""
    newest = max((run / "checkpoints").iterdir(), key=lambda path: path.name)
    return load_file(newest / "state.safetensors")


def assert_same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Check that two states are the same bit for bit."""
    assert first.keys() == second.keys()
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert not different, f"{len(different)} tensors differ, {different[:3]} among them"


def free_port() -> int:
    """Return a port that nothing listens on, for launches whose port 0 older versions of Accelerate take literally."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
