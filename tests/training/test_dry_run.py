"""Check that a dry run tells what training would need and refuses what it would refuse, and starts nothing."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.small_runs import forget_accelerator, run_small, small_config

from benchmarks.steps import benchmark_accelerator, make_workload
from benchmarks.timing import peak_memory
from hamgan.errors import ConfigError
from hamgan.training import dry_run as module
from hamgan.training.command import main
from hamgan.training.dry_run import count_saved_bytes, dry_run

pytestmark = pytest.mark.usefixtures("new_accelerator")


def test_it_tells_what_a_run_needs_and_makes_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path, "train.augment=cutout", "data.flip=true")
    dry_run(config)
    text = capsys.readouterr().out
    assert re.search(r"^networks  G [\d,]+ and D [\d,]+ parameters$", text, re.MULTILINE)
    assert re.search(r"^FLOPs     [\d.e+-]+ billion per image that D sees", text, re.MULTILINE)
    assert re.search(r"\nmemory    about \d+ MiB for networks.* and \d+ MiB for the feature maps of 8 images", text)
    assert re.search(r"^speed     [\d.,]+ images/s in a few steps: 0.04 kimg take 0:0\d:\d\d", text, re.MULTILINE)
    assert not config.folder.exists()
    picture = tmp_path / "run-first-batch.png"
    assert f"look at   {picture}: the first 8 images" in text
    assert len(set(Image.open(picture).convert("L").tobytes())) > 50


def test_it_counts_from_the_checkpoint_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_small(tmp_path, "train.total_kimg=0.016")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    forget_accelerator()
    dry_run(small_config(tmp_path, "train.total_kimg=0.04"))
    assert "0.024 kimg take" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        dry_run(small_config(tmp_path, "seed=3"))
    options = ["--config", str(tmp_path / "small.yaml"), "--run_dir", str(run), "--seed", "3", "--dry-run"]
    main([*options, "--override-resume", "seed"])
    assert "0.024 kimg take" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_steps_that_do_not_fit_are_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda _device: 2**20)
    dry_run(small_config(tmp_path))
    text = capsys.readouterr().out
    assert "1 MiB are free\n          which does not fit: take a larger --train.accumulation" in text
    assert "images/s" not in text


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("more", [[], ["train.consistency.real=10", "train.consistency.latent=5"]], ids=["", "ICR"])
def test_the_memory_that_is_told_is_the_memory_of_a_step(width: int, more: list[str], tmp_path: Path) -> None:
    channels = [f"generator.channels={width}", "discriminator.channels=16", "data.num_classes=12"]
    config = small_config(tmp_path, *channels, *more)
    accelerator = benchmark_accelerator(config, torch.device("cpu"))
    work = make_workload(config, "fast", 16, accelerator)
    work()  # Adam's moments are made in the first step
    assert 16 * count_saved_bytes(config, accelerator) == pytest.approx(peak_memory(work), rel=0.2)
