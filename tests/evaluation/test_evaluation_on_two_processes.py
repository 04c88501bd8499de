"""Check that two processes give the numbers of one, for an odd sample count, and stop together on bad input."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.photo_crops import crop_photographs, save_by_class

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
import torch
from accelerate import PartialState
from hamgan.errors import ConfigError
from hamgan.evaluation import evaluate

torch.set_num_threads(1)
state = PartialState(cpu=True)
samples, reference, output = sys.argv[1:]
try:
    row = evaluate(
        samples, reference, ("fid", "is", "kid", "prc", "density_coverage", "mind", "per_class"),
        "efficientnet-lite0", progress=False, device="cpu", kid_subset_size=12, kid_subsets=7, is_splits=3,
        batch_size=4,
    )
except ConfigError as error:
    row = {"error": str(error)}
with open(f"{output}.{state.process_index}", "w") as file:
    json.dump(row, file)
"""


def run_processes(count: int, samples: Path, reference: Path, output: Path) -> list[dict[str, float]]:
    """Return the rows of ``count`` gloo processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": port, "WORLD_SIZE": str(count), "ACCELERATE_USE_CPU": "true"}
    arguments = [sys.executable, "-c", PROGRAM, str(samples), str(reference), str(output)]
    if count == 1:
        environment.pop("WORLD_SIZE")
        started = [subprocess.Popen(arguments, env=environment)]
    else:
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        started = [subprocess.Popen(arguments, env=environment | rank) for rank in ranks]
    assert [process.wait(timeout=240) for process in started] == [0] * count
    return [json.loads(Path(f"{output}.{rank}").read_text()) for rank in range(count)]


def test_two_processes_equal_one_with_an_uneven_count(tmp_path: Path) -> None:
    samples = save_by_class(crop_photographs(0, 4), tmp_path / "a")
    reference = save_by_class(crop_photographs(1, 4), tmp_path / "b")
    for file in (samples / "ihc/003.png", *reference.glob("brick/00[01].png"), reference / "ihc/000.png"):
        file.unlink()
    (alone,) = run_processes(1, samples, reference, tmp_path / "one")
    first, second = run_processes(2, samples, reference, tmp_path / "two")
    assert first == second
    assert (first["processes"], alone["processes"]) == (2, 1)
    tolerances = {"fid": 1e-6, "inception_score": 1e-5, "inception_score_std": 1e-5, "kid": 1e-4}
    tolerances |= {"precision": 1e-9, "recall": 1e-9, "density": 1e-9, "coverage": 1e-9, "mind": 1e-6}
    tolerances |= {"class_leakage": 1e-9, "class_diversity": 1e-5}
    for name, tolerance in tolerances.items():
        key = f"{name}_efficientnet_lite0"
        assert first[key] == pytest.approx(alone[key], rel=tolerance, abs=1e-9), name
    for key in ("num_samples", "samples_hash", "reference_hash", "reference_count"):
        assert first[key] == alone[key]


def test_bad_image_of_one_process_stops_both_with_a_sentence(tmp_path: Path) -> None:
    samples = save_by_class(crop_photographs(0, 1), tmp_path / "a")
    bad = sorted(samples.glob("*/*.png"))[-1]  # read by the second process alone
    bad.write_bytes(b"no picture")
    reference = save_by_class(crop_photographs(1, 1), tmp_path / "b")
    errors = [str(row["error"]) for row in run_processes(2, samples, reference, tmp_path / "out")]
    assert f"{bad.parent.name}/{bad.name} is not a picture in a known format" in errors[1]
    assert "another process stopped" in errors[0]
