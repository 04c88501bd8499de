"""Test the parts that all benchmarks share: timing in turn, memory, FLOPs, reports, the command line."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks.command import SUBCOMMANDS, main, use_device
from benchmarks.report import Report, Table, cost_table
from benchmarks.timing import Costs, Timings, count_flops, measure_costs, measure_matmul, peak_memory, time_in_turn
from hamgan.errors import ConfigError
from hamgan.machine import describe_machine

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_alternatives_run_in_turn_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    timings = time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert {name: len(values) for name, values in timings.seconds.items()} == {"a": 3, "b": 3}


def test_ten_times_the_work_takes_about_ten_times_as_long() -> None:
    x = torch.randn(256, 256)

    def work(times: int) -> None:
        for _ in range(times):
            x @ x

    timings = time_in_turn({"one": lambda: work(4), "ten": lambda: work(40)}, rounds=7)
    assert timings.clock == "cpu"
    assert 5 < timings.ratio("ten", "one") < 20


def test_a_ratio_compares_within_rounds() -> None:
    """Check that the ratio stays when the times of one round double, as under a load."""
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


def test_a_matrix_product_of_this_machine_is_plausible() -> None:
    assert 1e9 < measure_matmul(CPU, rounds=2) < 1e13


def test_costs_are_compared_with_the_base() -> None:
    x = torch.ones(8, 16)
    costs = measure_costs({"one": lambda: x @ x.mT, "two": lambda: x @ x[:4].mT}, 2, CPU, uncounted=["two"])
    assert costs.flops == {"one": 2 * 8 * 16 * 8}
    assert costs.memory == {"one": 4 * 8 * 8, "two": 4 * 8 * 4}
    table = cost_table(
        "Products", Costs(Timings({"one": [0.5], "two": [1.0]}, "cpu"), costs.memory, costs.flops), 2, "one"
    )
    assert table.rows[1] == ["two", 1000.0, 2.0, 2.0, 4 * 8 * 4 / 2**20, 0.5, None, "0%"]
    without_base = cost_table("Products", costs, 2, "three")
    assert {row[3] for row in without_base.rows} == {row[5] for row in without_base.rows} == {None}


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


def test_help_lists_the_subcommands_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; from benchmarks.command import main; main(['--help'])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "usage: python -m benchmarks" in finished.stdout
    for name, summary in SUBCOMMANDS.items():
        assert name in finished.stdout
        assert " ".join(summary.split()[:4]) in " ".join(finished.stdout.split())


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_a_module_and_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as finished:
        main([name, "--help"])
    assert finished.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: python -m benchmarks {name}" in printed
    assert ("--minutes" if name == "gpu" else "--rounds") in printed
    assert callable(import_module(f"benchmarks.{name}").run)


def test_a_device_gets_an_index_where_it_can_have_one() -> None:
    assert use_device("cpu") == CPU
    assert use_device(None).type in ("cpu", "cuda", "mps", "xpu")
    if torch.cuda.is_available():
        assert use_device("cuda").index is not None
