"""What all benchmarks share: timing in turn, memory, FLOPs, reports, the command line."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.machine import measure_ceilings
from benchmarks.report import Report, Table
from benchmarks.timing import Timings, count_flops, interleaved, peak_memory
from hamgan.errors import ConfigError
from hamgan.machine import describe_machine

CPU = torch.device("cpu")


def test_alternatives_run_in_turn_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    timings = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert {name: len(values) for name, values in timings.seconds.items()} == {"a": 3, "b": 3}


def test_ten_times_the_work_takes_about_ten_times_as_long() -> None:
    x = torch.randn(256, 256)

    def work(times: int) -> None:
        for _ in range(times):
            x @ x

    timings = interleaved({"one": lambda: work(4), "ten": lambda: work(40)}, rounds=7)
    assert timings.clock == "cpu"
    assert 5 < timings.ratio("ten", "one") < 20


def test_a_ratio_compares_within_rounds() -> None:
    """A load that doubles one round's times leaves the ratio alone."""
    timings = Timings({"a": [1.0, 2.0, 1.0], "b": [2.0, 4.0, 2.0]}, "cpu")
    assert timings.ratio("a", "b") == 0.5
    assert timings.median("a") == 1.0
    assert timings.spread("b") == pytest.approx(0.5)


def test_peak_memory_is_what_lives_at_a_time() -> None:
    def work() -> None:
        for _ in range(5):
            first = torch.empty(2**20)
            second = torch.empty(2**19)
            del first, second

    assert peak_memory(work) == 4 * (2**20 + 2**19)


def test_flops_of_a_product_are_two_per_multiplication_and_addition() -> None:
    x = torch.ones(3, 5)
    assert count_flops(lambda: x @ x.mT) == 2 * 3 * 3 * 5


def test_ceilings_of_this_machine_are_plausible() -> None:
    ceilings = measure_ceilings(CPU, rounds=2)
    assert 1e9 < ceilings.matmul < 1e13
    assert 1e8 < ceilings.bandwidth < 1e12
    assert ceilings.dtype == "float32"


def test_a_report_reads_as_markdown_and_keeps_its_figures(tmp_path: Path) -> None:
    table = Table(["form", "ms", "images"], [["fast", 1.23456, 12000], ["plain", None, "none"]], "Step")
    report = Report("Training", "Median of 7.", [table], ["fast is faster"], {"ratio": 0.5})
    text = report.markdown()
    assert "| fast  | 1.23 | 12,000 |" in text
    assert "| plain | -    | none   |" in text
    assert describe_machine()["summary"] in text
    assert text.endswith("- fast is faster")
    report.save(tmp_path / "out.json")
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["figures"] == {"ratio": 0.5}
    assert saved["tables"][0]["rows"][0] == ["fast", 1.23456, 12000]
    assert saved["machine"]["torch"] == torch.__version__


def test_an_unknown_subcommand_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="unknown subcommand 'trian'"):
        main(["trian"])


def test_help_names_the_subcommands_without_running_one(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "usage: python -m benchmarks SUBCOMMAND" in capsys.readouterr().out
