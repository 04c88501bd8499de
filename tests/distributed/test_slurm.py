"""Test the SLURM script with stand-ins for SLURM's commands: launching, passing arguments on, requeueing."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPT = ROOT / "scripts/slurm/train.sbatch"
STAND_INS = {
    # Two tasks side by side; the highest exit code counts, as with the real one.
    "srun": """shift
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & tasks+=($!); done
code=0
for task in "${tasks[@]}"; do wait $task; now=$?; (( now > code )) && code=$now; done
exit $code""",
    "scontrol": 'if [ "$1" = show ]; then echo first; echo second; else echo "$@" >>requeued; fi',
    "python": """echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $*" >>started
trap 'sleep 0.2; exit 75' TERM USR1
touch running
for _ in $(seq ${SECONDS_OF_WORK:-0}0); do sleep 0.1; done
exit ${CODE:-0}""",
}


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    job = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "60007",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "n[1-2]",
    }
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env=os.environ | job | environment | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def requeued(folder: Path) -> str:
    file = folder / "requeued"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize(("code", "expected"), [(0, ""), (1, ""), (2, ""), (75, "requeue 60007\n")])
def test_only_a_saved_run_goes_back_into_the_queue(tmp_path: Path, code: int, expected: str) -> None:
    process = start(tmp_path, "--config", "a b.yaml", "--seed", "3", CODE=str(code))
    assert process.wait(30) == code
    assert requeued(tmp_path) == expected
    started = sorted((tmp_path / "started").read_text().splitlines())
    tail = "2 first:20007 scripts/train.py --config a b.yaml --seed 3"
    assert started == [f"0 0 {tail}", f"1 1 {tail}"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_job_is_waited_for_and_requeued(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, SECONDS_OF_WORK="20")
    deadline = time.monotonic() + 20
    while not (tmp_path / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    found = subprocess.run(["pgrep", "-s", str(process.pid), "-a"], capture_output=True, text=True).stdout
    for child, _, command in (line.partition(" ") for line in found.splitlines()):
        if "/python" in command or int(child) == process.pid:
            os.kill(int(child), number)
    assert process.wait(30) == 75
    assert requeued(tmp_path) == "requeue 60007\n"
