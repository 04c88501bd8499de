"""Check runs that launchers start: two machines without shared files, and torchrun's restarts after a kill."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from support.photo_crops import crop_photographs, save_by_class
from support.small_runs import rows, run_small, start, write_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes of gloo, which takes CPU memory"),
]
Process = subprocess.Popen[bytes]


def start_machines(folder: Path, data: list[Path], *options: str) -> list[Process]:
    """Start a launcher per machine, which find each other over the loopback; each has a run folder of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    common = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "2"]
    common += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port), "--mixed_precision", "no"]
    common += ["--dynamo_backend", "no"]
    started = []
    for rank, source in enumerate(data):
        place = folder / f"machine{rank}"
        place.mkdir(exist_ok=True)
        train: list[str | Path] = [ROOT / "scripts/train.py", "--config", write_config(place), *options]
        train += ["--data.source", source, "--run_dir", place / "run"]
        started.append(start(*common, "--machine_rank", str(rank), *train, log=place / "log.txt"))
    return started


def end(machines: list[Process], folder: Path) -> tuple[list[int], list[str]]:
    codes = [process.wait(200) for process in machines]
    return codes, [(folder / f"machine{rank}/log.txt").read_text() for rank in range(len(machines))]


@pytest.mark.timeout(500)
def test_two_machines_with_files_of_their_own_equal_one_process(tmp_path: Path) -> None:
    first = save_by_class(crop_photographs(0, 4), tmp_path / "first/pictures")
    second = Path(shutil.copytree(first, tmp_path / "second/pictures"))
    codes, logs = end(start_machines(tmp_path, [first, second]), tmp_path)
    assert codes == [0, 0], logs
    alone = run_small(tmp_path / "alone", f"data.source={first}")
    for ours, theirs in zip(rows(alone), rows(tmp_path / "machine0/run"), strict=True):
        assert theirs["d_loss"] == pytest.approx(ours["d_loss"], rel=1e-4)
    # The first machine alone writes. The other one does not see its checkpoints, and says so.
    assert not (tmp_path / "machine1/run/checkpoints").exists()
    codes, logs = end(start_machines(tmp_path, [first, second], "--train.total_kimg", "0.08"), tmp_path)
    assert all(codes)
    assert re.search(r"process 1 on \S+ sees in \S+ as newest checkpoint none, but the first process sees", logs[1])
    # Other pictures there are no less than that.
    shutil.rmtree(next(second.rglob("*.png")).parent)
    shutil.rmtree(tmp_path / "machine0/run")
    codes, logs = end(start_machines(tmp_path, [first, second]), tmp_path)
    assert all(codes)
    assert "sees training data with 20 images of 5 classes" in logs[1]


@pytest.mark.timeout(500)
def test_torchrun_starts_a_run_again_that_has_lost_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # see docs/training.md
    run, log = tmp_path / "run", tmp_path / "log.txt"
    options = ["--config", str(write_config(tmp_path)), "--run_dir", str(run), "--train.total_kimg", "0.4"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", "--standalone"]
    process = start(*launcher, "scripts/train.py", *options, log=log)
    deadline = time.monotonic() + 200
    while not list(run.glob("checkpoints/0*")):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    workers = [
        int(child) for child in children.stdout.split() if b"train.py" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(workers[1], signal.SIGKILL)
    assert process.wait(250) == 0, log.read_text()
    assert "resuming from" in log.read_text()
    assert [row["kimg"] for row in rows(run)] == [pytest.approx(0.008 * number) for number in range(1, 51)]
