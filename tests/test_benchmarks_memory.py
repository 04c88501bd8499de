"""benchmark.py memory: live bytes on tensors without data, the largest batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from small_runs import forget_accelerator, small_config, write_config
from torch._subclasses import FakeTensorMode

from hamgan.benchmarks.command import main
from hamgan.benchmarks.memory import LiveBytes, Need, measure_need, step_bytes
from hamgan.benchmarks.steps import make_workload
from hamgan.benchmarks.timing import peak_memory
from hamgan.config import ConfigError


def test_live_bytes_rise_and_fall_with_the_tensors() -> None:
    with FakeTensorMode(), LiveBytes() as live:
        first = torch.empty(1000)
        view = first[:10]
        del first
        assert live.alive == 4000
        del view
        assert (live.alive, live.peak) == (0, 4000)


def test_the_largest_batch_is_what_fits() -> None:
    assert Need(fixed=100, per_image=10).largest_batch(100 + 10 * 27) == 24
    assert Need(fixed=100, per_image=10).largest_batch(90) == 0


def test_computed_bytes_are_those_of_a_real_step(tmp_path: Path) -> None:
    forget_accelerator()
    config, accelerator = small_config(tmp_path, "data.num_classes=5", "generator.channels=4"), Accelerator(cpu=True)
    workload = make_workload(config, "fast", 8, accelerator)
    workload()
    step = workload.step
    networks = [step.generator, step.discriminator, step.average]
    weights = sum(t.nbytes for n in networks if n for t in (*n.parameters(), *n.buffers()))
    states = [state for o in (step.generator_optimizer, step.discriminator_optimizer) for state in o.state.values()]
    alive = weights + sum(value.nbytes for state in states for value in state.values())
    alive += sum(p.grad.nbytes for n in networks if n for p in n.parameters() if p.grad is not None)
    measured = alive + peak_memory(workload)
    computed = step_bytes(config, 8, accelerator)
    forget_accelerator()
    assert computed == pytest.approx(measured, rel=0.15)


def test_recomputed_blocks_fit_larger_batches(tmp_path: Path) -> None:
    forget_accelerator()
    file = tmp_path / "memory.json"
    main(f"memory --config {write_config(tmp_path)} --gigabytes 1 --json {file} --device cpu".split())
    forget_accelerator()
    figures = json.loads(file.read_text())["figures"]["small"]
    assert 0 < figures["largest"][0] < figures["largest"][1]
    assert figures["recomputed"]["per_image"] < 0.8 * figures["kept"]["per_image"]


def test_the_official_recipe_needs_no_values_of_tensors(tmp_path: Path) -> None:
    forget_accelerator()
    config = small_config(tmp_path, "data.num_classes=5", "train.adam_eps_placement=tensorflow")
    assert step_bytes(config, 8, Accelerator(cpu=True)) > 0
    forget_accelerator()


def test_no_memory_at_all_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="--gigabytes must be above 0"):
        main(["memory", "--gigabytes", "0"])


@pytest.mark.parametrize("recompute", [False, True])
def test_the_largest_batch_takes_what_there_is(tmp_path: Path, recompute: bool) -> None:
    """Also where the step's peak is at another place than for small batches, among weights instead of images."""
    forget_accelerator()
    config, accelerator, limit = small_config(tmp_path, "data.num_classes=100000"), Accelerator(cpu=True), 5e8
    batch = measure_need(config, recompute, limit, accelerator).largest_batch(limit)
    config = replace(config, train=replace(config.train, recompute=recompute))
    assert step_bytes(config, batch, accelerator) == pytest.approx(limit, rel=0.02)
    forget_accelerator()
