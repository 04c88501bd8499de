"""Test a run's sheets, which depend on weights alone, and the statistics that it samples with."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.photo_crops import crop_photographs, save_by_class
from support.small_runs import forget_accelerator, small_config

from hamgan.checkpoint import Progress
from hamgan.data import open_source
from hamgan.errors import ConfigError
from hamgan.networks import build_networks
from hamgan.training.preview import Preview, evaluation_metrics
from hamgan.training.setup import make_accelerator
from hamgan.training.step import GanStep


@pytest.fixture
def preview(tmp_path: Path) -> Iterator[Preview]:
    forget_accelerator()
    config = small_config(tmp_path, "data.num_classes=12")
    step = GanStep(*build_networks(config), config.train, make_accelerator(config))
    yield Preview(config, open_source("photos", "train", 32), step, Progress(1500))
    forget_accelerator()


def test_a_sheet_has_a_row_per_class_and_depends_on_the_weights_alone(preview: Preview) -> None:
    torch.manual_seed(1)
    sheet, diversity = preview.draw_sheet()
    torch.manual_seed(2)
    again, same = preview.draw_sheet()
    assert sheet.height == 18 + 2 * 98 - 2  # a line of seeds, and pictures that are seen
    assert np.array_equal(np.asarray(sheet), np.asarray(again))
    assert 0 < diversity == same < 1
    with torch.no_grad():
        assert preview.step.average is not None
        preview.step.average.get_parameter("linear.bias").add_(1.0)  # spectral norm undoes a factor
    assert not np.array_equal(np.asarray(sheet), np.asarray(preview.draw_sheet()[0]))


def test_a_generator_stands_where_the_run_does_and_may_have_the_statistics_of_g(preview: Preview) -> None:
    generator = preview.generator()
    assert (generator.kimg, generator.class_names[2] if generator.class_names else "") == (1.5, "cat")
    buffer = next(value for name, value in preview.step.generator.named_buffers() if name.endswith("running_mean"))
    buffer.add_(1.0)
    images = [preview.generator(running)([0], [2], output="tensor") for running in (False, True)]
    assert torch.equal(images[0], generator([0], [2], output="tensor"))
    assert not torch.equal(images[0], images[1])


def test_an_unknown_extractor_ends_a_run_before_its_first_step(preview: Preview) -> None:
    preview.config.eval.every_kimg = 1.0
    preview.config.eval.features = "resnet"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="resnet"):
        Preview(preview.config, preview.source, preview.step, preview.progress)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["fid"], None),
        (["fid", "class_accuracy"], r"class_accuracy needs a data set with .* two splits.*: add a val split"),
    ],
)
def test_a_reference_that_metrics_cannot_use_ends_a_run_before_its_first_step(
    preview: Preview, tmp_path: Path, metrics: list[str], message: str | None
) -> None:
    """Check a folder without a val split before training, not hours later in the first evaluation."""
    save_by_class(crop_photographs(0, 2), tmp_path / "pictures")
    settings = preview.config.eval
    settings.every_kimg, settings.features, settings.metrics = 1.0, "efficientnet-lite0", metrics
    settings.reference = str(tmp_path / "pictures")
    with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
        Preview(preview.config, preview.source, preview.step, preview.progress)


def test_numbers_of_an_evaluation_come_with_their_cost() -> None:
    row = {"kimg": 1.0, "fid": 30.0, "protocol": "x", "num_samples": 5, "seconds": 3.0}
    found = evaluation_metrics(row, 2.0, Progress(seconds=6.0, evaluation_seconds=2.0))
    assert found == {"fid": 30.0, "evaluation_seconds": 2.0, "evaluation_share": 0.25}
