"""Test torch.compile of the step: the gradients of the eager form, whole graphs, none after the first step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import forget_accelerator, small_config
from support.two_processes import compiled_norms, in_two_processes
from torch import Tensor, nn
from torch._dynamo.utils import counters

from benchmarks.steps import draw_batches
from hamgan.networks import build_networks
from hamgan.training.step import GanStep

BATCH = 4
STEPS = 2

Gradients = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    forget_accelerator()
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
    forget_accelerator()


def gradients(step: GanStep, network: str) -> Gradients:
    """Return the gradients of the last step of one network by the names of its parameters."""
    found = {}
    for name, parameter in step.networks[network].named_parameters():
        assert parameter.grad is not None, name
        found[f"{network}.{name}"] = parameter.grad.clone()
    return found


def trained(folder: Path, compiled: bool, precision: str, *overrides: str) -> list[Gradients]:
    """Return the gradients of every parameter in each step; compiling after the first step is an error."""
    compile_ = f"train.compile={str(compiled).lower()}"
    config = small_config(folder, "data.num_classes=5", "train.adam_eps=1e-3", compile_, *overrides)
    forget_accelerator()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    generator, discriminator = build_networks(config)
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith(".gate"):  # at 0, where it starts, nothing inside a Hamburger has a gradient
                nn.init.constant_(parameter, 0.5)
    step = GanStep(generator, discriminator, config.train, accelerator)
    found = []
    for number in range(STEPS):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            batches = draw_batches(config, step, BATCH, number)
            step.discriminator_step([batches[0]], report=True)
            of_discriminator = gradients(step, "discriminator")
            step.generator_step([batches[1]], report=True)
            found.append(of_discriminator | gradients(step, "generator"))
    return found


def compare_with_eager(folder: Path, precision: str, *overrides: str, graphs: int = 4) -> None:
    eager, compiled = (trained(folder, form, precision, *overrides) for form in (False, True))
    tolerance = 1e-3 if precision == "no" else 2e-2
    for expected, found in zip(eager, compiled, strict=True):
        norms = {name: float(gradient.norm()) for name, gradient in expected.items()}
        # Rounding is all that the gradients of biases in front of batch norm consist of.
        rounding = 1e-6 * max(norms.values())
        for name, norm in norms.items():
            assert norm > rounding or name.endswith(".bias"), name
            assert float((found[name] - expected[name]).norm()) <= tolerance * norm + rounding, name
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


TERMS = ["r1_gamma=1", "finite_differences.enabled=true", "top_k=0.5"]
TERMS += ["consistency.real=10", "consistency.latent=5", "consistency.spread=0.5"]
FORWARDS_ONLY = ["discriminator.last_layer=san", *(f"train.{term}" for term in TERMS)]


@pytest.mark.slow
@pytest.mark.usefixtures("_eager_kernels")
@pytest.mark.parametrize(
    ("precision", "overrides"), [("bf16", []), ("no", FORWARDS_ONLY)], ids=["bf16", "terms that need forwards only"]
)
def test_every_gradient_of_traced_networks_equals_the_eager_one(
    tmp_path: Path, precision: str, overrides: list[str]
) -> None:
    compare_with_eager(tmp_path, precision, *overrides)


@pytest.mark.slow
@pytest.mark.usefixtures("_eager_kernels")
def test_a_gradient_penalty_leaves_the_discriminator_eager(tmp_path: Path) -> None:
    compare_with_eager(tmp_path, "no", "train.r1_gamma=1", "train.loss=non_saturating", graphs=2)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_compiled_code_gives_the_gradients_of_the_eager_form(tmp_path: Path, precision: str) -> None:
    """Compare both forms; this takes minutes on a CPU, as every fused kernel is a run of the C++ compiler."""
    compare_with_eager(tmp_path, precision)


def test_a_compiled_batch_norm_over_two_processes_equals_the_eager_one(tmp_path: Path) -> None:
    for process in in_two_processes(compiled_norms)(tmp_path):
        for (eager, compiled), tolerance in zip(process, (1e-5, 1e-2), strict=True):
            assert eager.keys() == compiled.keys() >= {"y", "x", "gain", "bias", "running_mean", "running_var"}
            assert eager["kept"] == 0
            for name, expected in eager.items():
                assert compiled[name].dtype == expected.dtype, name
                torch.testing.assert_close(compiled[name], expected, rtol=tolerance, atol=tolerance, msg=name)
