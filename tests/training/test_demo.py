"""Run the demo in miniature: it trains, measures beside the untrained generator, draws a sheet and says where it is."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT
from support.photo_crops import PHOTOGRAPHS, crop_photographs, save_by_class
from support.small_runs import python

SMALL = ["--train.total_kimg", "0.032", "--log.samples_every_kimg", "0"]
SMALL += ["--eval.metrics", "fid", "--eval.num_samples", str(3 * len(PHOTOGRAPHS))]


@pytest.mark.slow
def test_the_demo_trains_measures_and_draws(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("val", 1)):
        save_by_class(crop_photographs(seed, 3), tmp_path / "pictures" / split)
    source = ["--data.source", str(tmp_path / "pictures")]
    done = python(ROOT / "scripts/demo.py", "--run_dir", tmp_path / "run", *source, *SMALL)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "run/results.jsonl").read_text())
    assert row["num_samples"] == row["reference_count"] == 3 * len(PHOTOGRAPHS)
    assert row["reference"] == str(tmp_path / "pictures")
    assert row["reference_split"] == "val"
    assert f"trained generator    {row['fid_efficientnet_lite0']:9.2f}" in done.stdout
    accuracy, chance = row["class_accuracy_efficientnet_lite0"], 1 / len(PHOTOGRAPHS)
    assert f"generated images     {accuracy:8.1%}   (chance {chance:.1%})" in done.stdout
    assert row["least_diverse_classes_efficientnet_lite0"][0] in done.stdout
    with Image.open(tmp_path / "run/demo.png") as sheet:
        # Rows of 96 pixels, three columns of real images and ten of generated ones.
        assert sheet.height > len(PHOTOGRAPHS) * 96
        assert sheet.width > 13 * 96
