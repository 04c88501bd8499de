"""Train the photographs at 128 px for some minutes, killed and resumed once: speed, FID over time, a sheet."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import Clock
from benchmarks.gpu.speed import DTYPES
from benchmarks.report import Report, Table
from benchmarks.steps import benchmark_accelerator, make_workload, read_config
from benchmarks.timing import count_flops, measure_matmul
from hamgan.errors import DONE, STOPPED

NAME = "photos128"
KILLED_AFTER, KEPT, COUNTED = 0.4, 0.1, 8
"""Shares of the time before the kill, and to save and report at the end; batch at which FLOPs are counted."""

SECONDS_TO_STOP = 50.0
"""To the end of an evaluation that a signal has met; then the process is killed, and the part fails."""


def run(options: argparse.Namespace, clock: Clock) -> Report:
    """Train in processes of their own; a later call goes on with the same run, without another kill."""
    folder = options.output / NAME
    name = (options.configs or [NAME])[0]
    resumed = (folder / "metrics.jsonl").is_file()
    command = [sys.executable, "-m", "hamgan", "train", "--config", name, "--run_dir", str(folder)]
    command += ["--checkpoint.every_kimg=50", "--train.total_kimg=100000", *(f"--{value}" for value in options.set)]
    environment = {} if options.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    calls = [] if resumed else [(signal.SIGKILL, KILLED_AFTER * clock.left)]
    codes = []
    for number, seconds in [*calls, (signal.SIGTERM, 0.0)]:
        with (options.output / f"{NAME}.log").open("ab") as log:
            codes.append(_train(command, environment, log, number, seconds or clock.left - KEPT * clock.seconds))
    report = Report("Training", f"`{name}` in processes of their own; the first was killed by SIGKILL and resumed.")
    if resumed:
        report.protocol = f"`{name}`, going on with the run of an earlier call."
    ended_well = codes[-1] in (DONE, STOPPED) and (resumed or codes[0] in (-signal.SIGKILL, DONE))
    failures = [] if ended_well else [f"training ended with {codes}; see {options.output / f'{NAME}.log'}"]
    report.figures |= {"failures": failures, "codes": codes}
    if not failures:
        resumptions = [line for line in _lines(options.output / f"{NAME}.log") if line.startswith("resuming from")]
        report.verdict.append(resumptions[-1] if resumptions else "The kill came before a checkpoint: it began anew.")
        _report(report, folder, options)
    return report


def _train(command: list[str], environment: dict[str, str], log: Any, number: signal.Signals, seconds: float) -> int:
    """Run a command for some seconds, then send it a signal; return its exit code."""
    process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        return process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    try:
        return process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait()


def _report(report: Report, folder: Path, options: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in _lines(folder / "metrics.jsonl")]
    measured = [row for row in rows if "images_per_second" in row]
    evaluated = [json.loads(line) for line in _lines(folder / "results.jsonl")]
    speed = sorted(row["images_per_second"] for row in measured)[len(measured) // 2] if measured else 0.0
    memory = max((row.get("memory_gib", 0.0) for row in measured), default=0.0)
    share = _utilisation(folder, options, speed)
    if measured:
        report.tables.append(
            Table(
                ["kimg", "minutes", "images/s, median", "GiB", "of a matrix product"],
                [[measured[-1]["kimg"], measured[-1]["seconds"] / 60, speed, memory, f"{share:.1%}"]],
            )
        )
    found = [[row["kimg"], value] for row in evaluated for key, value in row.items() if _is_fid(key)]
    report.tables.append(Table(["kimg", "FID"], found, "FID over time"))
    report.verdict += [row["protocol"] for row in evaluated[-1:]]
    if sheets := sorted((folder / "samples").glob("*.png")):
        shutil.copy(sheets[-1], options.output / f"{NAME}.png")
        report.verdict.append(f"Sheet: {NAME}.png.")
    report.figures |= {"rows": measured, "evaluations": evaluated, "images_per_second": speed, "utilisation": share}


def _is_fid(key: str) -> bool:
    return key == "fid" or key.startswith(("fid_efficientnet", "fid_inception", "fid_tf32"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _utilisation(folder: Path, options: argparse.Namespace, speed: float) -> float:
    """Return the counted FLOPs of training divided by those of a large matrix product in the same time."""
    config = read_config(folder / "config.yaml", [])
    accelerator = benchmark_accelerator(config, options.device)
    work = make_workload(config, "fast", COUNTED, accelerator)
    precision = accelerator.mixed_precision.replace("no", "fp32")
    flops = count_flops(work) / COUNTED
    return speed * flops / measure_matmul(options.device, DTYPES.get(precision, torch.float32))
