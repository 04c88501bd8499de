"""Test a user's way in miniature: train, stop, resume, sample, evaluate, every step in a process of its own."""

import json
import signal
import time
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT
from support.small_runs import assert_same_state, last_state, python, rows, run_small, start, write_config

LENGTH = "train.total_kimg=0.2"


def stop_after_the_first_row(run: Path, log: Path, *command: str | Path) -> int:
    """Start a training, send SIGTERM when metrics.jsonl has a row, and return the exit code."""
    process = start(*command, log=log)
    try:
        deadline = time.monotonic() + 200
        while not (run / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=60)
    finally:
        process.kill()


@pytest.mark.slow
def test_train_stop_resume_sample_and_evaluate(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log.txt"
    train = (ROOT / "scripts/train.py", "--config", write_config(tmp_path), "--run_dir", run, f"--{LENGTH}")
    assert stop_after_the_first_row(run, log, *train) == 75, log.read_text()
    assert "stopped: checkpoint saved at 0." in log.read_text()
    assert len(rows(run)) < 25

    resumed = python(*train)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stdout
    assert f"trained; go on with hamgan sample --checkpoint {run} --output grid.png" in resumed.stdout
    uninterrupted = run_small(tmp_path / "alone", LENGTH)
    assert rows(run) == rows(uninterrupted)
    assert_same_state(last_state(run), last_state(uninterrupted))

    sample = (ROOT / "scripts/sample.py", "--checkpoint", run, "--seeds", "0-2", "--truncation", "0.8")
    grid = python(*sample, "--classes", "cat", "3-4", "--output", tmp_path / "grid.png", "--scale", "2")
    assert grid.returncode == 0, grid.stderr
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.height > 3 * 64  # three rows of 64 pixels
    wrong = python(*sample, "--classes", "kat", "--output", tmp_path / "wrong.png")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: no class is called 'kat'; nearest: cat")
    assert len(wrong.stderr.splitlines()) == 1
    assert not (tmp_path / "wrong.png").exists()

    evaluate = ["--reference", "photos", "--features", "efficientnet-lite0", "--metrics", "fid,is"]
    sizes = ["--num-samples", "60", "--reference-samples", "60", "--is-splits", "2", "--batch-size", "30"]
    evaluated = python(ROOT / "scripts/evaluate.py", "--checkpoint", run, *evaluate, *sizes, "--quiet")
    assert evaluated.returncode == 0, evaluated.stderr
    row = json.loads((run / "results.jsonl").read_text())
    assert "efficientnet-lite0" in json.dumps(row)
    fid = next(value for key, value in row.items() if key.startswith("fid") and isinstance(value, float))
    assert 0 < fid < float("inf")
