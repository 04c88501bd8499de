"""Check the one rule of TF32: training steps follow `train.tf32`, an evaluation its protocol, all else is float32.

TF32 changes nothing on a CPU, so torch's switch is looked at, at the moment at which a network runs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small_runs import forget_accelerator, run_small
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from hamgan.evaluation import evaluate
from hamgan.evaluation.report import numbers_of
from hamgan.hamburger.precision import set_tf32, using_tf32
from hamgan.sampling import load_generator

TINY = ["log.samples_every_kimg=0.04", "eval.every_kimg=0.04", "eval.num_samples=4", "eval.reference_samples=4"]
TINY += ["eval.features=efficientnet-lite0", "eval.metrics=[fid]"]


@pytest.fixture
def seen() -> Iterator[dict[str, set[bool]]]:
    """Return whether TF32 was allowed when a network ran, by the name of its class."""
    found: dict[str, set[bool]] = {}

    def look(module: nn.Module, _inputs: object, _output: object) -> None:
        switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert switches[0] == switches[1]
        found.setdefault(type(module).__name__, set()).add(switches[0])

    hook = register_module_forward_hook(look)
    set_tf32(False)
    yield found
    hook.remove()
    set_tf32(False)
    forget_accelerator()


def test_training_alone_follows_its_option(tmp_path: Path, seen: dict[str, set[bool]]) -> None:
    run = run_small(tmp_path, *TINY, "train.tf32=true")
    assert (seen["Generator"], seen["Discriminator"]) == ({True}, {True})
    assert (seen["InferenceGenerator"], seen["InvertedResidual"]) == ({False}, {False})
    seen.clear()
    load_generator(run)(seeds=[0], classes=[0])
    assert seen["InferenceGenerator"] == {False}


def test_an_evaluation_follows_its_protocol_and_says_so(tmp_path: Path, seen: dict[str, set[bool]]) -> None:
    run = run_small(tmp_path)
    for tf32 in (True, False):
        seen.clear()
        row = evaluate(
            run, "photos", ("fid",), "efficientnet-lite0", tf32=tf32, num_samples=4, reference_samples=4, progress=False
        )
        assert (seen["InferenceGenerator"], seen["InvertedResidual"]) == ({tf32}, {tf32})
    # On a CPU nothing is TF32, and the row says what was.
    assert row["feature_precision"] == row["sample_precision"] == "fp32"
    assert "drawn in fp32)" in row["protocol"]


def test_a_number_in_tf32_is_another_number() -> None:
    row = {"fid_tf32": 3.0, "extractor": "inception-v3-compat"}
    assert [number.key for number in numbers_of(row)] == ["fid_tf32"]


def test_the_switches_return() -> None:
    set_tf32(True)
    with using_tf32(False):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    set_tf32(False)
