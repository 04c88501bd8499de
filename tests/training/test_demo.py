"""Run the demo in miniature: it trains, measures beside the untrained generator, draws a sheet and says where it is."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT
from support.small_runs import python

SMALL = ["--train.total_kimg", "0.032", "--log.samples_every_kimg", "0"]
SMALL += ["--eval.metrics", "fid", "--eval.num_samples", "36", "--eval.reference_samples", "36"]


@pytest.mark.slow
def test_the_demo_trains_measures_and_draws(tmp_path: Path) -> None:
    done = python(ROOT / "scripts/demo.py", "--run_dir", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "run/results.jsonl").read_text())
    assert row["num_samples"] == row["reference_count"] == 36
    assert row["reference"] == "fashion"
    assert row["reference_split"] == "val"
    assert f"trained generator    {row['fid_efficientnet_lite0']:9.2f}" in done.stdout
    assert f"generated images     {row['class_accuracy_efficientnet_lite0']:8.1%}   (chance 11.1%)" in done.stdout
    assert row["least_diverse_classes_efficientnet_lite0"][0] in done.stdout
    with Image.open(tmp_path / "run/demo.png") as sheet:
        # Nine rows of 96 pixels, sixteen columns.
        assert sheet.height > 9 * 96
        assert sheet.width > 16 * 96
