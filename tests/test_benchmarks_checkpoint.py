"""benchmark.py checkpoint: real checkpoints of a small run, and what they cost at which speed."""

import json
from pathlib import Path

import pytest
from small_runs import forget_accelerator, write_config

from hamgan.benchmarks.checkpoint import fastest, lost_share
from hamgan.benchmarks.command import main
from hamgan.config import ConfigError


def test_the_share_counts_standing_still_and_a_disk_that_is_too_slow() -> None:
    assert lost_share(1.0, 5.0, 990, 10) == pytest.approx(0.01)
    assert lost_share(1.0, 100.0, 990, 10) == pytest.approx(2 / 101)
    assert fastest(1.0, 5.0, 990) == pytest.approx(10)
    assert fastest(1.0, 198.0, 990) == pytest.approx(5)


def test_the_report_says_what_checkpoints_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_accelerator()
    file = tmp_path / "checkpoint.json"
    options = f"--config {write_config(tmp_path)} --rounds 2 --threads 1 --device cpu --json {file} --folder {tmp_path}"
    main(["checkpoint", *options.split()])
    forget_accelerator()
    figures = json.loads(file.read_text())["figures"]
    assert figures["still"] > 0
    assert figures["written"] > 0
    assert figures["bytes"] > 100_000
    assert list(figures["limits"]) == ["0.016", "500.0"]
    assert "Every 500 kimg costs" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "small.yaml"]


@pytest.mark.parametrize(
    ("options", "message"), [("--images-per-second 0", "must be above 0"), ("--folder missing", "is no folder")]
)
def test_bad_usage_is_a_sentence(options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["checkpoint", *options.split()])
