"""Check the SLURM script under a real SLURM: submit, warn, save, requeue, resume, finish."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT
from support.small_runs import environment, rows, write_config

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} here: Debian has them in slurm-wlm and munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs for users, which needs root"),
]
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=requeue_delay=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start munge and SLURM with this machine as the only node; give the environment that its commands need."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(2)))
    values = environment() | {"SLURM_CONF": str(file), "PATH": f"{folder}:{os.environ['PATH']}"}
    # The script takes `python` where the checkout has no environment of its own.
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(0o755)
    munge = [f"--{name}={folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "sock"))]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    subprocess.run(["munged", "--force", *munge], check=True)
    subprocess.run(["slurmctld", "-f", str(file)], env=values, check=True)
    subprocess.run(["slurmd", "-f", str(file)], env=values, check=True)
    yield values
    for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
        if (folder / name).is_file():
            os.kill(int((folder / name).read_text()), 15)


def wait_for(text: str, log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while text not in (log.read_text() if log.is_file() else ""):
        assert time.monotonic() < deadline, log.read_text() if log.is_file() else "nothing was started"
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_a_warned_job_saves_goes_back_into_the_queue_and_finishes(cluster: dict[str, str], tmp_path: Path) -> None:
    """Send SIGUSR1 as SLURM does before the time limit; two tasks go on where they had stopped, and write every row."""
    log, run = tmp_path / "log.txt", tmp_path / "run"
    resources = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0", f"--output={log}"]
    train = ["--config", str(write_config(tmp_path)), "--run_dir", str(run), "--train.total_kimg", "0.8"]
    train += ["--log.every_kimg", "0.04"]
    submit = ["sbatch", "--parsable", *resources, "scripts/slurm/train.sbatch", *train]
    done = subprocess.run(submit, env=cluster, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    wait_for("0.1/0.8 kimg", log)
    subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
    wait_for("back into the queue (restart 1)", log)
    while job in subprocess.run(["squeue", "--noheader"], env=cluster, capture_output=True, text=True).stdout.split():
        time.sleep(1)
    text = log.read_text()
    assert "SIGUSR1: stopping after this step" in text
    stopped = re.search(r"stopped: checkpoint saved at ([\d.]+) kimg", text)
    assert stopped is not None
    assert f"resuming from {run}/checkpoints/" in text
    assert text.count("batch     8 images = 2 process(es) x 1 accumulation x 4") == 2
    assert [row["kimg"] for row in rows(run)] == [pytest.approx(0.04 * number) for number in range(1, 21)]
    starts = [json.loads(line)["kimg"] for line in (run / "environment.jsonl").read_text().splitlines()]
    assert starts == [0.0, float(stopped[1])]
