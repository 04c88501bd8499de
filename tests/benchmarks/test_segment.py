"""Run ``python -m benchmarks segment`` on small real trainings: what it trains, measures and goes on from."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import forget_accelerator
from support.small_segmentation import small_config

from benchmarks.command import main
from benchmarks.report import spread
from hamgan.config import save_config
from hamgan.errors import ConfigError
from hamgan.segmentation import load_config, load_segmenter
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.evaluation import evaluate


def compare(folder: Path, *options: str) -> dict[str, Any]:
    """Compare in ``folder`` on one thread; return the figures."""
    config, output, figures = folder / "small.yaml", folder / "out", folder / "figures.json"
    save_config(small_config(folder), config)
    common = ["--config", str(config), "--output", str(output), "--json", str(figures)]
    forget_accelerator()
    main(["segment", *options, *common, "--rounds", "1", "--threads", "1", "--device", "cpu"])
    forget_accelerator()
    found: dict[str, Any] = json.loads(figures.read_text())["figures"]
    return found


@pytest.mark.long
def test_variants_train_are_measured_and_a_second_call_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, out = tmp_path / "page.md", tmp_path / "out"
    page.write_text("# Page\n\n## Measured\n\nText.\n")
    first = compare(tmp_path, "--seeds", "0", "--kimg", "0.03", "--docs", str(page))
    heads = {}
    for name, kimg in first["lengths"].items():
        folder = out / f"{name.replace(' ', '-')}-0"
        saved = load_config(folder / "config.yaml")
        assert (saved.seed, saved.train.total_kimg, saved.data.source) == (0, kimg, "mosaic")
        heads[name] = (saved.head.context, saved.head.hamburger.steps, saved.head.hamburger.eval_steps)
        loaded = load_segmenter(folder)
        measured = evaluate(loaded.network, MosaicSource("val"), loaded.config.eval)
        assert first["rows"][name]["0"]["miou"] == measured["miou"]
    assert first["lengths"]["hamburger"] == 0.03
    assert heads["hamburger"] == ("hamburger", 2, 7)
    assert heads["one update"] == ("hamburger", 1, 1)
    assert heads["no context"][0] == "none"
    table = capsys.readouterr().out
    assert "| hamburger  | 0.03 | 1.00 " in table
    assert "\n| no context " in page.read_text()

    kept = {path: path.stat().st_mtime_ns for path in out.glob("*-0/checkpoints/*/*")}
    second = compare(tmp_path, "--seeds", "0,1", "--kimg", "0.03")
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert second["lengths"] == first["lengths"]
    assert second["rows"]["hamburger"]["0"] == first["rows"]["hamburger"]["0"]
    assert set(second["rows"]["no context"]) == {"0", "1"}
    with pytest.raises(ConfigError, match=r"holds runs of 0\.03 kimg, not 0\.06; take another folder"):
        compare(tmp_path, "--kimg", "0.06")


def test_scores_are_told_by_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.5], "{:.1f}".format) == "2.5 (1.0 to 3.0)"
    assert spread([-1.25], "{:+.1f}".format) == "-1.2"
