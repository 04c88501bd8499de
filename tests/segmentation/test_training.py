"""Check runs of segmenters: what they write, that they resume bit for bit, go back, and are one on two processes."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.paths import ROOT
from support.small_runs import LAUNCH, assert_same_state, forget_accelerator, last_state, python, rows
from support.small_segmentation import CASES, run_small, small_config

from hamgan.errors import ConfigError, Diverged, Stopped
from hamgan.segmentation import load_segmenter
from hamgan.segmentation.data.mosaic import MosaicSource
from hamgan.segmentation.evaluation import evaluate
from hamgan.segmentation.training import SegmentationTraining, spread, warn_of_untrained_kernels


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with evaluations every two steps and sheets, which keeps its best checkpoint alone."""
    options = ["eval.every_kimg=0.008", "log.samples_every_kimg=0.012", "log.samples=2", "checkpoint.keep_last=1"]
    return run_small(tmp_path_factory.mktemp("finished"), *options, "checkpoint.keep_best=1")


def test_a_run_writes_rows_sheets_evaluations_and_its_segmenter(finished: Path) -> None:
    found = rows(finished)
    assert [row["kimg"] for row in found if "loss" in row] == [0.004, 0.008, 0.012, 0.016, 0.020, 0.024]
    assert {"loss", "accuracy", "gradient_norm", "lr"} <= set(found[0])
    assert [path.name for path in sorted((finished / "samples").iterdir())] == ["00000000.012.png", "00000000.024.png"]
    results = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    assert [row["kimg"] for row in results] == [0.008, 0.016, 0.024]
    assert all("6 images of mosaic/val, 12 classes" in row["protocol"] for row in results)
    loaded = load_segmenter(finished)
    assert (loaded.header.kimg, loaded.header.evaluations[0]["miou"]) == (0.024, results[-1]["miou"])
    assert loaded.class_names == MosaicSource("val").class_names
    again = evaluate(loaded.network, MosaicSource("val"), loaded.config.eval)
    assert again["miou"] == results[-1]["miou"], "what is passed on is what was measured"


@pytest.mark.parametrize("key", ["checkpoint.keep_best", "checkpoint.keep_last", "checkpoint.every_kimg"])
def test_keeping_all_is_not_spelt_minus_one(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} is -1.*; allowed: 0 and above"):
        SegmentationTraining(small_config(tmp_path, f"{key}=-1"))


def test_another_length_says_what_the_learning_rate_becomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_small(tmp_path, "train.total_kimg=0.008", "train.lr=0.01")
    assert "length " not in capsys.readouterr().err
    run_small(tmp_path, "train.total_kimg=0.016", "train.lr=0.01")
    assert "falls to the new end, so at 0.008 kimg it goes from 0 to 0.005\n" in capsys.readouterr().err
    assert '"train.total_kimg", "before": 0.008, "after": 0.016' in (tmp_path / "run/overrides.jsonl").read_text()


def test_a_run_in_half_precision_is_measured_in_full(tmp_path: Path) -> None:
    run = run_small(tmp_path, "train.precision=bf16", "eval.every_kimg=0.008", "train.total_kimg=0.008")
    measured = json.loads((run / "results.jsonl").read_text())["miou"]
    loaded = load_segmenter(run)
    assert evaluate(loaded.network, MosaicSource("val"), loaded.config.eval)["miou"] == measured


def test_the_checkpoint_with_the_highest_miou_is_kept(finished: Path) -> None:
    results = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    best = max(results, key=lambda row: float(row["miou"]))["kimg"]
    kept = {float(path.name) for path in (finished / "checkpoints").iterdir()}
    assert kept == {best, 0.024}


def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path: Path) -> None:
    options = ["eval.every_kimg=0.012", "train.ema_decay=0.9"]
    whole = run_small(tmp_path / "whole", *options)
    forget_accelerator()
    stopped = SegmentationTraining(small_config(tmp_path / "parts", *options))
    make = stopped.make_step

    def make_and_signal(batches: object) -> None:
        make(batches)  # type: ignore[arg-type]
        if stopped.progress.images == 12:
            stopped.signals.ask(signal.SIGTERM)

    stopped.make_step = make_and_signal  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=r"checkpoint saved at 0\.012 kimg"):
        stopped.run()
    parts = run_small(tmp_path / "parts", *options)
    assert rows(parts) == rows(whole)
    assert_same_state(last_state(parts), last_state(whole))


def test_what_is_not_finite_leads_back_to_a_checkpoint_and_other_data(tmp_path: Path) -> None:
    forget_accelerator()
    run = SegmentationTraining(small_config(tmp_path, "checkpoint.every_kimg=0.004"))
    make = run.make_step

    def make_and_break(batches: object) -> None:
        if run.progress.images == 8 and not run.progress.rollbacks:
            with torch.no_grad():
                next(run.step.network.parameters()).fill_(float("nan"))
        make(batches)  # type: ignore[arg-type]

    run.make_step = make_and_break  # type: ignore[method-assign]
    run.run()
    assert [record["to"] for record in run.progress.rollbacks] == ["00000000.008"]
    assert run.progress.images == 24
    assert all(torch.isfinite(value).all() for value in last_state(run.config.folder).values())


def test_a_run_that_diverges_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    forget_accelerator()
    run = SegmentationTraining(small_config(tmp_path))
    with torch.no_grad():
        next(run.step.network.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match=r"not finite at .* there is no checkpoint to go back to"):
        run.run()


def test_another_configuration_is_refused_with_the_differences(finished: Path) -> None:
    forget_accelerator()
    with pytest.raises(
        ConfigError, match=r"holds a run with another configuration:(.|\n)*train\.lr(.|\n)*head\.context"
    ):
        SegmentationTraining(small_config(finished.parent, "train.lr=0.5", "head.context=none"))


def test_weights_that_nobody_named_are_an_error(tmp_path: Path) -> None:
    forget_accelerator()
    with pytest.raises(ConfigError, match=r"encoder\.weights is not set"):
        SegmentationTraining(small_config(tmp_path, "encoder.weights=null"))


def test_crops_too_small_for_the_large_kernels_are_told_where_whole_images_are_measured(tmp_path: Path) -> None:
    held_out = MosaicSource("val")
    (line,) = warn_of_untrained_kernels(small_config(tmp_path), held_out)
    assert "a crop of 64 px has 2 cells at stride 32" in line
    assert "images of 128 px; eval.mode: slide with eval.window: 64" in line
    larger = small_config(tmp_path, "eval.mode=slide", "eval.window=96", "eval.stride=32")
    assert "images of 96 px; eval.mode: slide with eval.window: 64" in warn_of_untrained_kernels(larger, held_out)[0]
    windows = ["eval.mode=slide", "eval.window=64", "eval.stride=32"]
    for others in (windows, ["augment.crop=128"], ["augment.crop=320", "eval.short_side=512"], ["encoder.kind=timm"]):
        assert warn_of_untrained_kernels(small_config(tmp_path, *others), held_out) == []


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(tmp_path: Path) -> None:
    result = python(*LAUNCH, ROOT / "tests/support/small_segmentation.py", tmp_path / "launched")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "UserWarning: Grad strides" not in result.stderr
    for case, changes in CASES.items():
        alone, together = run_small(tmp_path / case, *changes), tmp_path / "launched" / case / "run"
        for ours, theirs in zip(rows(alone), rows(together), strict=True):
            for name in {"loss", "gradient_norm", "miou"} & set(ours):
                assert theirs[name] == pytest.approx(ours[name], rel=2e-3), (case, ours["kimg"], name)
        first, second = (load_file(run / "segmenter.safetensors") for run in (alone, together))
        assert first.keys() == second.keys()
        for part in ("encoder.", "head."):
            values = [
                torch.cat([v.double().flatten() for n, v in state.items() if n.startswith(part)])
                for state in (first, second)
            ]
            assert (values[0] - values[1]).norm() < 1e-4 * values[0].norm(), (case, part)


def test_sheets_show_images_from_all_over_a_source() -> None:
    assert [spread(index, 3, 66) for index in range(3)] == [11, 33, 55]
    assert [spread(index, 6, 4) for index in range(4)] == [0, 1, 2, 3]
