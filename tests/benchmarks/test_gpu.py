"""Run every part of ``python -m benchmarks gpu`` at a tiny size on the CPU: what it writes, and how it fails."""

import json
from pathlib import Path

import pytest
from support.small_runs import forget_accelerator

from benchmarks import gpu
from benchmarks.command import main
from benchmarks.gpu import parity
from benchmarks.gpu.merge import MARK
from benchmarks.gpu.parity import Precision
from hamgan.errors import ConfigError

NARROW = ["generator.channels=2", "discriminator.channels=4", "generator.hamburger.rank=2", "train.precision=fp32"]
SHORT = ["train.total_kimg=0.032", "log.every_kimg=0.016", "log.samples_every_kimg=0.032", "log.sample_classes=2"]
SHORT += ["eval.every_kimg=0.032", "eval.num_samples=4", "eval.reference_samples=4", "eval.metrics=[fid]"]


def call(part: str, folder: Path, *options: str) -> None:
    forget_accelerator()
    main(["gpu", part, "--device", "cpu", "--output", str(folder), "--configs", "photos", *options])
    forget_accelerator()


def figures(folder: Path, part: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / f"{part}.json").read_text())["figures"]
    return found


def test_parity_holds_on_the_cpu(tmp_path: Path) -> None:
    call("parity", tmp_path, "--set", *NARROW)
    found = figures(tmp_path, "parity")
    assert found["failures"] == []
    assert set(found["photos"]) == {"fp32", "tf32", "bf16", "fp16"}  # type: ignore[call-overload]
    assert "| gradients of D |" in (tmp_path / "parity.md").read_text()


def test_an_error_beyond_its_bound_fails_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "PRECISIONS", (Precision("fp32", 1e-12, 1e-12),))
    with pytest.raises(SystemExit, match=r"error: photos, fp32: images are off by .*, allowed is 1e-12"):
        call("parity", tmp_path, "--set", *NARROW)
    assert "images are off by" in (tmp_path / "parity.md").read_text()


def test_speed_and_profile_write_their_tables(tmp_path: Path) -> None:
    monkey = ["--batches", "2", "--forms", "fast,plain", "--set", *NARROW]
    call("speed", tmp_path, *monkey)
    measured = figures(tmp_path, "speed")
    assert list(measured) == [f"photos {form} 2" for form in ("fast", "plain")]
    fast = measured["photos fast 2"]
    assert isinstance(fast, dict)
    assert fast["images_per_second"] > 0
    assert fast["bytes"] > 0
    assert 0 < fast["share"] < 1
    call("profile", tmp_path, *monkey)
    profile = figures(tmp_path, "profile")["photos, fast"]
    assert isinstance(profile, dict)
    assert profile["launches"]["convolution"] > 0
    assert profile["bytes"]["batch norm"] > 0


def test_training_evaluation_and_the_page(tmp_path: Path) -> None:
    """Check a run that ends before its kill, which comes after minutes, and the page that gets all tables."""
    call("train", tmp_path, "--set", *NARROW, *SHORT)
    assert figures(tmp_path, "train")["codes"] == [0, 0]
    assert (tmp_path / "photos128.png").is_file()
    call("evaluate", tmp_path, "--samples", "4")
    assert list(figures(tmp_path, "evaluate")) == ["tf32 off", "tf32 on"]
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{MARK}\n\nold\n")
    call("report", tmp_path, "--docs", str(page))
    text = page.read_text()
    assert text.startswith("# A page\n")
    assert "\nold\n" not in text
    assert "### Training" in text
    assert "## Measured on " in text
    assert "FID over time" in text


def test_a_late_part_says_what_it_left_out(tmp_path: Path) -> None:
    call("parity", tmp_path, "--minutes", "0")
    assert "Left out for lack of time: photos." in (tmp_path / "parity.md").read_text()


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.NEEDED, "no_such_module", "no-such-wheel")
    with pytest.raises(ConfigError, match="these packages are missing: no-such-wheel"):
        call("parity", tmp_path)


def test_an_evaluation_needs_a_run_and_a_page_its_mark(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no generator in .*: run `python -m benchmarks gpu train`"):
        call("evaluate", tmp_path)
    with pytest.raises(ConfigError, match="is no page with the line"):
        call("report", tmp_path, "--docs", str(tmp_path / "page.md"))
