"""Run ``python -m benchmarks recipe`` on small real trainings: what it trains, measures, writes and resumes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.small_runs import forget_accelerator, write_config

from benchmarks.command import main
from benchmarks.recipe.features import RandomFeatures
from benchmarks.recipe.plan import Plan, cost_per_image, read_variants
from benchmarks.recipe.result import write_into_page
from benchmarks.recipe.training import _wait
from benchmarks.report import Report
from benchmarks.timing import Timings
from hamgan.data import open_source
from hamgan.errors import STOPPED, ConfigError

EVALUATION = {"features": "efficientnet-lite0", "num_samples": 24, "reference_samples": 24, "metrics": ["fid"]}


def small(folder: Path) -> Path:
    """Write a configuration of 40 images a run, measured with 24 a side."""
    file = write_config(folder)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"eval": EVALUATION}))
    return file


def call(folder: Path, *options: str) -> str:
    """Compare in ``folder`` on one thread and return the table."""
    forget_accelerator()
    common = ["--config", str(small(folder)), "--output", str(folder / "out"), "--rounds", "1", "--threads", "1"]
    main(["recipe", *options, *common, "--device", "cpu"])
    forget_accelerator()
    return (folder / "out" / "recipe.md").read_text()


@pytest.fixture
def _few_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the classifier of the class accuracy on five images of every class."""
    monkeypatch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES", 60)
    monkeypatch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES_PER_CLASS", 5)


@pytest.mark.slow
@pytest.mark.usefixtures("_few_training_images")
def test_variants_train_are_measured_and_a_second_call_goes_on(tmp_path: Path) -> None:
    page = tmp_path / "recipes.md"
    page.write_text("# Recipes\n\n## Measured\n\nText.\n")
    table = call(tmp_path, "plain", "no_context", "--seeds", "0", "--kimg", "0.04", "--docs", str(page))
    figures = json.loads((tmp_path / "out/recipe.json").read_text())["figures"]
    plain, without = figures["runs"]
    assert plain["kimg"] == 0.04
    assert without["kimg"] == pytest.approx(0.04 / figures["costs"]["no_context"], abs=6e-4)
    for run in (plain, without):
        assert run["numbers"]["fid"] > 0
        assert run["numbers"]["fid random"] > 0
        assert 0 <= run["numbers"]["least diversity"] <= run["numbers"]["diversity"]
    saved = yaml.safe_load((tmp_path / "out/no_context-0/config.yaml").read_text())
    assert (saved["generator"]["context"], saved["seed"]) == ("none", 0)
    assert "| plain      | 1     | 0.04" in table
    assert table.split("\n", 2)[2] in page.read_text()
    with Image.open(tmp_path / "out/recipe.png") as sheet:
        assert sheet.width > 15 * 64

    first = (tmp_path / "out/plain-0/measured.json").stat().st_mtime_ns
    again = call(tmp_path, "plain", "--seeds", "0,1", "--kimg", "0.04")
    assert (tmp_path / "out/plain-0/measured.json").stat().st_mtime_ns == first
    assert re.search(r"\| plain +\| 2 +\| 0.04", again)
    assert " to " in again
    with pytest.raises(ConfigError, match=r"holds a comparison with kimg 0.04, not 0.08; take another folder"):
        call(tmp_path, "plain", "--kimg", "0.08")


@pytest.mark.slow
@pytest.mark.usefixtures("_few_training_images")
def test_a_training_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("plain: {}\nodd: {train.init_from: nowhere}\nother: {train.loss: wasserstein}\n")
    own = ["--variants-file", str(file), "--seeds", "0", "--equal", "images"]
    table = call(tmp_path, "plain", "odd", "other", *own, "--kimg", "0.016")
    assert "- odd, seed 0, failed: error: " in table
    assert "nowhere" in table
    assert "| other " in table
    assert "| odd " not in table
    runs = json.loads((tmp_path / "out/recipe.json").read_text())["figures"]["runs"]
    assert [run["kimg"] for run in runs] == [0.016] * 3


def test_a_signal_stops_the_comparison_also_while_a_training_begins() -> None:
    """This program has no handler for SIGTERM, as a training that is still importing torch has none."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert _wait(process) == STOPPED
    timer.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_unknown_names_and_keys_get_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("plain: {}\nwrong: {train.lecan: 1}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml has no variant 'plian'; did you mean `plain`"):
        read_variants("photos", ["plian"], file)
    with pytest.raises(ConfigError, match="lecan"):
        read_variants("photos", ["wrong"], file)
    file.write_text("plain\n")
    with pytest.raises(ConfigError, match="must map names to mappings"):
        read_variants("photos", ["plain"], file)


def test_every_variant_of_the_package_is_a_configuration() -> None:
    file = Path(__file__).parents[2] / "benchmarks/recipe/variants.yaml"
    variants = read_variants("fashion", list(yaml.safe_load(file.read_text())), file)
    assert variants["attention"].generator.context == "attention"
    assert variants["diffaugment"].train.augment == ["color", "translation", "cutout"]
    assert len({str(config) for config in variants.values()}) == len(variants)


def test_equal_time_counts_images_and_not_steps(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("plain: {}\nlarge: {train.batch_size: 64}\ntwice: {train.discriminator_steps: 2}\n")
    variants = read_variants("fashion", ["plain", "large", "twice"], file)
    timings = Timings({"plain": [1.0, 2.0], "large": [3.0, 6.0], "twice": [1.5, 3.0]}, "cpu")
    # Four times the images in three times the time; twice the images in one and a half times the time.
    costs = {name: cost_per_image(timings, variants, name, "plain") for name in variants}
    assert costs == {"plain": 1.0, "large": 0.75, "twice": 0.75}
    plan = Plan(tmp_path, variants, [0], "time", 12.0, costs, "cpu")
    assert plan.run("large", 0).kimg == 16.0


def test_random_features_tell_classes_apart_and_are_always_the_same() -> None:
    source = open_source("fashion", "val", 32)
    images = torch.from_numpy(source.read(np.arange(450))).permute(0, 3, 1, 2)
    features = RandomFeatures()(images)
    assert features.shape == (450, 256)
    assert torch.equal(features[:7], RandomFeatures()(images[:7]))
    labels = torch.from_numpy(source.labels[:450])
    means = torch.stack([features[:225][labels[:225] == label].mean(0) for label in range(9)])
    right = (torch.cdist(features[225:], means).argmin(1) == labels[225:]).float().mean()
    assert right > 0.4


def test_a_table_takes_the_place_of_its_earlier_self(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n## Measured\n\n## After\n\nText.\n")
    for protocol in ("first", "second"):
        write_into_page(Report("Recipes", protocol), page, "context")
    write_into_page(Report("Recipes", "third"), page, "other")
    text = page.read_text()
    assert "first" not in text
    assert text.index("## Measured") < text.index("third") < text.index("second") < text.index("## After")
    page.write_text("# Page\n")
    with pytest.raises(ConfigError, match="no page with the heading ## Measured"):
        write_into_page(Report("Recipes", "fourth"), page, "context")
