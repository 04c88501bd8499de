"""benchmark.py scaling: the model of all-reduces, and two processes that measure what it is made of."""

import json
from pathlib import Path

import pytest
from small_runs import write_config

from hamgan.benchmarks.command import main
from hamgan.benchmarks.scaling import Links, Traffic, step_seconds, traffic
from hamgan.benchmarks.two_processes import fit
from hamgan.config import ConfigError, load_config

LINKS = Links(node=100.0, network=10.0, latency=0.5, hop=0.25)


def test_a_ring_moves_each_byte_twice_and_the_slowest_link_decides() -> None:
    assert LINKS.all_reduce(1000, 1) == 0
    assert LINKS.all_reduce(1000, 2) == pytest.approx(0.5 + 1000 / 100)
    assert LINKS.all_reduce(1000, 8) == pytest.approx(0.5 + 2 * 7 / 8 * 1000 / 100)
    assert LINKS.all_reduce(1000, 32) == pytest.approx(0.5 + 2 * 0.25 + 2 * 31 / 32 * 1000 / 10)


def test_what_backward_does_not_hide_is_waited_for() -> None:
    demand = Traffic(discriminator=1000, generator=1000, sums=4, sum_bytes=0)
    # Of 30 s each of the two backwards takes 10; the whole sum is the last bucket as well.
    assert step_seconds(30.0, demand, LINKS, 1, overlap=1.0) == 30
    one = LINKS.all_reduce(1000, 2)
    assert step_seconds(30.0, demand, LINKS, 2, overlap=1.0) == pytest.approx(30 + 2 * one + 4 * 0.5)
    assert step_seconds(30.0, demand, LINKS, 2, overlap=0.0) == pytest.approx(30 + 2 * (0.5 + one) + 4 * 0.5)


def test_traffic_is_that_of_the_published_networks() -> None:
    found = traffic(load_config("configs/hamgan_imagenet128.yaml", ["data.num_classes=1000"]))
    assert (found.generator, found.discriminator) == (4 * 70_518_468, 4 * 87_989_282)
    assert found.sums == 3 * 12  # two in each of five blocks, the Hamburger's and the last


def test_latency_and_speed_are_a_line_through_the_measured_ends() -> None:
    links = fit([(4, 1.0), (100, 7.0), (1004, 11.0)])
    assert links.all_reduce(4, 2) == pytest.approx(1.0, rel=0.05)
    assert links.all_reduce(1004, 2) == pytest.approx(11.0, rel=0.05)


@pytest.mark.slow
def test_the_report_has_the_model_its_assumptions_and_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, file = tmp_path / "scaling.png", tmp_path / "scaling.json"
    main(f"scaling --config {write_config(tmp_path)} --rounds 2 --check --plot {plot} --json {file}".split())
    printed = capsys.readouterr().out
    assert "A model, not a measurement. Assumed: 60 ms per step" in printed
    assert "Two gloo processes here" in printed
    assert plot.stat().st_size > 10_000
    figures = json.loads(file.read_text())["figures"]
    assert figures["seconds"]["1"] < figures["seconds"]["8"] < figures["seconds"]["512"]
    assert figures["two_processes"]["apart"] > 0
    assert len(figures["two_processes"]["reduce"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--step-ms 0", "--step-ms is 0.0; it must be above 0"),
        ("--overlap 2", "--overlap is 2.0; allowed: 0 to 1"),
        ("--plot x.txt", r"--plot x.txt must end in .png or .svg"),
    ],
)
def test_bad_usage_is_a_sentence(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["scaling", *arguments.split()])
