"""Test torch.compile of the step: whole graphs, none after the first step, the numbers of the eager form."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import forget_accelerator, small_config
from torch import Tensor, nn
from torch._dynamo.utils import counters

from benchmarks.steps import draw_batches
from hamgan.networks import build_networks
from hamgan.training.step import GanStep

BATCH = 4


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    forget_accelerator()
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    forget_accelerator()


def trained(folder: Path, compiled: bool, precision: str, *overrides: str) -> Tensor:
    """Return losses and gradient norms of three steps [3, ...]; compiling after the first one is an error."""
    compile_ = f"train.compile={str(compiled).lower()}"
    config = small_config(folder, "data.num_classes=5", "train.adam_eps=1e-3", compile_, *overrides)
    forget_accelerator()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    step = GanStep(*build_networks(config), config.train, accelerator)
    rows = []
    for number in range(3):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            batches = draw_batches(config, step, BATCH, number)
            step.discriminator_step([batches[0]], report=True)
            step.generator_step([batches[1]], report=True)
        # How well Hamburgers reconstruct is not followed in compiled networks.
        metrics = {name: value for name, value in step.take_metrics().items() if "reconstruction" not in name}
        rows.append(torch.stack(list(metrics.values())))
    return torch.stack(rows)


def compare_with_eager(folder: Path, precision: str, *overrides: str, graphs: int = 4) -> None:
    eager, compiled = (trained(folder, form, precision, *overrides) for form in (False, True))
    tolerance = 1e-3 if precision == "no" else 2e-2
    torch.testing.assert_close(compiled, eager, rtol=tolerance, atol=tolerance)
    assert not counters["graph_break"]
    # G with and without gradient, D on one batch and on two.
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.fixture
def _eager_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run traced graphs by eager kernels; what is traced, and when, does not depend on the kernels."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **options: compile_module(module, backend="aot_eager", **options)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_eager_kernels")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_nothing_is_traced_anew_after_the_first_step(tmp_path: Path, precision: str) -> None:
    compare_with_eager(tmp_path, precision)


@pytest.mark.slow
@pytest.mark.usefixtures("_eager_kernels")
def test_a_gradient_penalty_leaves_the_discriminator_eager(tmp_path: Path) -> None:
    compare_with_eager(tmp_path, "no", "train.r1_gamma=1", "train.loss=non_saturating", graphs=2)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_code_gives_the_numbers_of_the_eager_form(tmp_path: Path, precision: str) -> None:
    """Compare both forms; this takes minutes on a CPU, as every fused kernel is a run of the C++ compiler."""
    compare_with_eager(tmp_path, precision)
