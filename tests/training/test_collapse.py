"""Check that runs driven to collapse on purpose are caught in time, and healthy ones are left alone.

Real runs of 8 images a step and a row each, on crops of photographs. Without spectral normalisation and with learning
rates 50 to 1000 times too large, three things happen: G's images become one, D dies and gives no gradient, or G's
gradient fades some time later.
"""

from pathlib import Path

import pytest
from support.photo_crops import crop_photographs, save_store
from support.small_runs import rows, run_small

from hamgan.errors import Diverged

WITHOUT_NORM = ["generator.spectral_norm.enabled=false", "discriminator.spectral_norm.enabled=false"]
CASES = {
    "one image": (["train.generator_lr=0.1"], "the spread of a batch of generated images", 0.16),
    "dead": (["train.generator_lr=0.05", "train.discriminator_lr=0.05"], "G gets no gradient", 0.16),
    "fading": (
        ["train.generator_lr=0.025", "train.discriminator_lr=0.025"],
        "G gets no gradient|g_gradient_norm is",  # which one, and when, differs between processors
        1.0,
    ),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_store(crop_photographs(0, 10), tmp_path_factory.mktemp("data") / "store")


def train(folder: Path, store: Path, *overrides: str) -> Path:
    return run_small(folder, f"data.source={store}", "monitor.action=stop", *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_driven_to_collapse_is_caught_in_time(store: Path, tmp_path: Path, case: str) -> None:
    overrides, reason, within_kimg = CASES[case]
    with pytest.raises(Diverged, match=reason):
        train(tmp_path, store, *WITHOUT_NORM, *overrides, "train.total_kimg=1")
    assert rows(tmp_path / "run")[-1]["kimg"] <= within_kimg


@pytest.mark.slow
def test_healthy_runs_are_left_alone(store: Path, tmp_path: Path, long: bool) -> None:
    """Train as many rows per seed as the slowest collapse takes; ten seeds with ``--long``."""
    for seed in range(10 if long else 1):
        run = train(tmp_path / str(seed), store, f"seed={seed}", "train.total_kimg=0.4")
        assert len(rows(run)) == 50
