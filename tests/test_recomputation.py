"""Activation checkpointing changes memory and time, and not one bit of the numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator
from small_runs import assert_same_state, forget_accelerator, small_config
from torch import Tensor

from hamgan.benchmarks.steps import draw_batches
from hamgan.benchmarks.timing import peak_memory
from hamgan.config import ConfigError, load_config
from hamgan.networks import build_networks
from hamgan.step import GanStep

OFFICIAL = ["generator.norm.biased=true", "generator.spectral_norm.clamp=true", "generator.spectral_norm.vector=input"]


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    forget_accelerator()
    yield Accelerator(cpu=True)
    forget_accelerator()


def trained(folder: Path, accelerator: Accelerator, *overrides: str) -> dict[str, Tensor]:
    """Both networks, buffers included, the average and the losses after two steps of two micro-batches."""
    config = small_config(folder, "data.num_classes=5", *overrides)
    step = GanStep(*build_networks(config), config.train, accelerator)
    for number in range(2):
        pairs = [draw_batches(config, step, 4, 2 * number + part) for part in range(2)]
        step.discriminator_step([pair[0] for pair in pairs], report=True)
        step.generator_step([pair[1] for pair in pairs], report=True)
        step.update_average(number)
    state = {f"G {name}": value for name, value in step.generator.state_dict().items()}
    state |= {f"D {name}": value for name, value in step.discriminator.state_dict().items()}
    assert step.average is not None
    state |= {f"average {name}": value for name, value in step.average.state_dict().items()}
    return state | step.take_metrics()


@pytest.mark.parametrize(
    "overrides",
    [[], OFFICIAL, ["train.r1_gamma=1", "train.loss=non_saturating"]],
    ids=["BigGAN", "official", "R1"],
)
def test_recomputed_blocks_train_bit_by_bit_the_same(
    tmp_path: Path, accelerator: Accelerator, overrides: list[str]
) -> None:
    kept = trained(tmp_path, accelerator, *overrides)
    recomputed = trained(tmp_path, accelerator, "train.recompute=true", *overrides)
    assert_same_state(kept, recomputed)


def test_recomputed_blocks_take_less_memory(tmp_path: Path, accelerator: Accelerator) -> None:
    peaks = []
    for recompute in ("false", "true"):
        config = small_config(tmp_path, "data.num_classes=5", "generator.channels=4", f"train.recompute={recompute}")
        step = GanStep(*build_networks(config), config.train, accelerator)
        batch = draw_batches(config, step, 8)[1]
        step.generator_step([batch])
        peaks.append(peak_memory(lambda step=step, batch=batch: step.generator_step([batch])))  # type: ignore[misc]
    assert peaks[1] < 0.8 * peaks[0]


def test_together_with_compile_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"train.recompute and train.compile are both on; take one"):
        load_config(None, ["train.recompute=true", "train.compile=true"])
