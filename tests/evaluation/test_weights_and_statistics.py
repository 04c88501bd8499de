"""Test the choice of weights and batch-norm statistics to measure, and the evaluations that a run records."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluations import small_generator
from support.small_runs import last_state, run_small, small_config

from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.evaluation import evaluate, make_protocol
from hamgan.evaluation.inputs.samples import load_samples
from hamgan.networks.batch_norm import batch_norm_statistics
from hamgan.sampling import LoadedGenerator

CPU = torch.device("cpu")
EVALUATION = [
    "eval.every_kimg=0.04",
    "eval.metrics=[is]",
    "eval.num_samples=12",
    "eval.features=efficientnet-lite0",
    "eval.batch_norm=running",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of a few steps, with an average of G and one evaluation."""
    return run_small(tmp_path_factory.mktemp("run"), *EVALUATION)


@pytest.mark.parametrize(
    ("ema", "batch_norm", "weights", "statistics", "stated"),
    [
        (True, None, "average", "average", "ema"),
        (True, "ema", "average", "average", "ema"),
        (True, "running", "average", "generator", "running"),
        (False, None, "generator", "generator", "running"),
        (False, "ema", "generator", "average", "ema"),
    ],
)
def test_weights_and_statistics_are_those_asked_for(
    run: Path, ema: bool, batch_norm: Any, weights: str, statistics: str, stated: str
) -> None:
    found = load_samples(run, make_protocol(ema=ema, batch_norm=batch_norm), CPU)
    assert isinstance(found, LoadedGenerator)
    state, tensors = last_state(run), found.network.state_dict()
    norms = batch_norm_statistics(tensors)
    assert len(norms) > 4
    assert all(torch.equal(value, state[f"{statistics}.{name}"]) for name, value in norms.items())
    biases = [name for name in tensors if name.endswith("bias") and f"average.{name}" in state]
    assert biases
    assert any(not torch.equal(state[f"average.{name}"], state[f"generator.{name}"]) for name in biases)
    assert all(torch.equal(tensors[name], state[f"{weights}.{name}"]) for name in biases)
    assert (found.is_average, found.batch_norm) == (weights == "average", stated)


def test_standing_statistics_of_the_trained_network_say_so(run: Path) -> None:
    found = load_samples(run, make_protocol(ema=False, batch_norm="standing"), CPU)
    assert isinstance(found, LoadedGenerator)
    assert (found.is_average, found.batch_norm) == (False, "standing")
    stored = last_state(run)
    norms = batch_norm_statistics(found.network.state_dict())
    assert not any(torch.equal(value, stored[f"generator.{name}"]) for name, value in norms.items())


def test_a_row_without_average_says_so(run: Path) -> None:
    row = evaluate(
        run, None, ("is",), "efficientnet-lite0", num_samples=6, is_splits=1, ema=False, device="cpu", progress=False
    )
    assert (row["ema"], row["batch_norm"]) == (False, "running")
    assert "no EMA, running BN statistics" in row["protocol"]


def test_training_says_what_its_evaluations_cost(run: Path) -> None:
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in metrics if "evaluation_share" in row]
    assert row["evaluation_seconds"] > 0
    assert 0 < row["evaluation_share"] < 1
    (result,) = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert (result["ema"], result["batch_norm"]) == (True, "running")


@pytest.mark.parametrize("changes", [{"ema": False}, {"batch_norm": "running"}])
def test_a_generator_in_memory_is_not_labelled_as_another(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="in memory has the average's weights and ema batch-norm statistics"):
        load_samples(small_generator(), make_protocol(**changes), CPU)


def test_a_file_of_the_average_has_no_other_weights(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"G itself with running .*has the averaged generator alone"):
        load_samples(run / "generator.safetensors", make_protocol(ema=False), CPU)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("eval.metrics=[fdi]", "unknown metric 'fdi'; did you mean `fid`"),
        ("eval.metrics=[]", "eval.metrics is empty; there are fid, is"),
        ("eval.features=inceptoin", "efficientnet-lite0"),
        ("eval.batch_norm=standig", "standing"),
    ],
)
def test_wrong_evaluations_end_a_run_before_it_starts(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        small_config(tmp_path, override)


def test_statistics_of_an_average_need_one() -> None:
    with pytest.raises(ConfigError, match=r"eval\.batch_norm: ema needs an average of G"):
        load_config(None, ["eval.batch_norm=ema", "train.ema_decay=0"])
