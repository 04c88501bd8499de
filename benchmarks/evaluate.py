"""Measure features and FID beside torch-fidelity, torchmetrics and pytorch-fid: the same images and weights file."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.evaluators import Evaluator, Numbers, load_evaluators, measure_evaluator
from benchmarks.extractors import measure_extractors, measure_neighbours
from benchmarks.random_weights import save_random_inception
from benchmarks.report import Report, Table, time_table, write_tables_into_page
from benchmarks.timing import Timings, Work, time_in_turn
from hamgan.data import open_source
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, Resources
from hamgan.evaluation.features.inception import PUBLISHED
from hamgan.evaluation.features.weights import find_weights
from hamgan.evaluation.inputs.images import ArrayImages
from hamgan.evaluation.metrics.fid import frechet_distance

RESOLUTION = 128
DIMENSION = 2048
PIPELINE_BATCHES = 8
BASE = "torch-fidelity"


def run(options: argparse.Namespace) -> Report:
    """Measure numbers and speed of every evaluator, FID's matrix part, and what the pipeline adds to the extractor."""
    if options.images < 2:
        raise ConfigError("--images is 1; a covariance needs two at least")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights, kind = _find_weights(options.weights, folder)
        splits = min(10, options.images // 2)
        evaluators = load_evaluators(
            weights, options.batch, splits=splits, device=options.device, compiled=options.compile
        )
        sets = {split: save_crops(split, options.images, folder / split) for split in ("val", "train")}
        numbers = [measure_evaluator(evaluator, sets["train"], sets["val"]) for evaluator in evaluators]
        speed = _measure_extraction(evaluators, options.batch, options.rounds, options.device)
        pipeline = _measure_pipeline(evaluators[0], folder, options)
        extractors, speeds = measure_extractors(_read_crops(options.batch), folder, options.rounds, options.device)
    matrix = _measure_matrix_part(options.rounds)
    neighbours, costs = measure_neighbours(options.rounds, DIMENSION)
    report = Report(
        "Evaluation",
        f"{options.images} images a side at {RESOLUTION} px, {kind} weights, batches of {options.batch}, "
        f"{torch.get_num_threads()} thread(s); in turn, medians of {options.rounds} rounds in {speed.clock} time.",
        [
            _numbers_table(evaluators, numbers, speed, options.batch),
            extractors,
            time_table(f"FID from moments of {DIMENSION} features", matrix, BASE),
            neighbours,
            time_table("What reading, hashing and sums add", pipeline, "bare"),
        ],
        _verdict(speed, matrix, pipeline),
        {
            "numbers": {one.name: vars(found) for one, found in zip(evaluators, numbers, strict=True)},
            "extraction": speed.to_json(),
            "extractors": {number: one.to_json() for number, one in speeds.items()},
            "neighbours": costs,
            "matrix_part": matrix.to_json(),
            "pipeline": pipeline.to_json(),
        },
    )
    if options.docs:
        write_tables_into_page(report, options.docs, "evaluation")
    return report


def _find_weights(given: Path | None, folder: Path) -> tuple[Path, str]:
    if given is not None and not given.is_file():
        raise ConfigError(f"--weights {given} is not a file")
    if given is not None:
        return given, "given"
    try:
        return find_weights(PUBLISHED, allow_download=False), "the official"
    except ConfigError:
        return save_random_inception(folder / "random.pth"), "random"


def save_crops(split: str, count: int, folder: Path) -> Path:
    """Save crops of the photographs, spread over the split, as a flat folder of PNGs at 128 px."""
    source = open_source("photos", split, RESOLUTION)
    folder.mkdir()
    for index, image in enumerate(source.read(_spread(len(source), count))):
        Image.fromarray(image).save(folder / f"{index:05d}.png")
    return folder


def _spread(total: int, count: int) -> np.ndarray:
    return np.linspace(0, total - 1, count).astype(np.int64)


def _read_crops(count: int) -> Tensor:
    source = open_source("photos", "val", RESOLUTION)
    return torch.from_numpy(np.asarray(source.read(_spread(len(source), count)))).permute(0, 3, 1, 2).contiguous()


def _measure_extraction(evaluators: list[Evaluator], batch: int, rounds: int, device: torch.device) -> Timings:
    images = _read_crops(batch)

    def make_work(evaluator: Evaluator) -> Work:
        return lambda: evaluator.extract(images)

    with torch.inference_mode():
        return time_in_turn({one.name: make_work(one) for one in evaluators}, rounds, device=device)


def _measure_matrix_part(rounds: int) -> Timings:
    """Measure FID from two means and covariances of 2048 features, by our form and by those of the other packages."""
    from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]  # ships none
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    moments = [_random_moments(seed) for seed in (0, 1)]
    arrays = [{"mu": mean.numpy(), "sigma": covariance.numpy()} for mean, covariance in moments]
    plain = [value for one in arrays for value in (one["mu"], one["sigma"])]
    return time_in_turn(
        {
            "hamgan (Cholesky, eigvalsh)": lambda: frechet_distance(*moments[0], *moments[1]),
            "torch-fidelity": lambda: fid_statistics_to_metric(arrays[0], arrays[1], False),
            "pytorch-fid (sqrtm)": lambda: calculate_frechet_distance(*plain),
        },
        min(rounds, 3),
        warmup=0,
    )


def _random_moments(seed: int) -> tuple[Tensor, Tensor]:
    rows = torch.randn(3 * DIMENSION, DIMENSION, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows *= torch.linspace(0.1, 1.0, DIMENSION, dtype=torch.float64)
    return rows.mean(0), rows.T.cov()


def _measure_pipeline(ours: Evaluator, folder: Path, options: argparse.Namespace) -> Timings:
    """Measure the bare extractor and `measure`, which reads, hashes and sums as well, on the same batches."""
    pixels = _read_crops(PIPELINE_BATCHES * options.batch)
    np.savez(folder / "pixels.npz", arr_0=pixels.permute(0, 2, 3, 1).numpy())
    images, extractor = ArrayImages(folder / "pixels.npz"), ours.extract
    assert isinstance(extractor, FeatureExtractor)

    def extract() -> None:
        for part in pixels.split(options.batch):
            extractor(part)

    def measure_all() -> None:
        Resources(extractor, options.batch).measure(images, is_splits=1)

    return time_in_turn({"bare": extract, "whole": measure_all}, options.rounds, device=options.device)


def _numbers_table(evaluators: list[Evaluator], numbers: list[Numbers], speed: Timings, batch: int) -> Table:
    rows = []
    for one, found in zip(evaluators, numbers, strict=True):
        fid, score = ("-" if value is None else f"{value:.6f}" for value in (found.fid, found.score))
        rate, share = batch / speed.median(one.name), speed.ratio(BASE, one.name)
        rows.append([one.name, fid, score, found.seconds, rate, share, one.why])
    headers = ["measured by", "FID", "IS", "whole call, s", "extraction, images/s", f"times {BASE}", "why it differs"]
    return Table(headers, rows, "The same images")


def _verdict(speed: Timings, matrix: Timings, pipeline: Timings) -> list[str]:
    ours, share = next(iter(matrix.seconds)), pipeline.ratio("bare", "whole")
    return [
        *(
            f"{name}: {speed.ratio(BASE, name):.2f} times the images/s of {BASE}."
            for name in speed.seconds
            if name.startswith("hamgan")
        ),
        f"FID's matrix part takes {matrix.median(ours):.2f} s, {matrix.ratio(ours, BASE):.2f} of {BASE}'s.",
        f"The whole pipeline reaches {share:.0%} of the extractor's bare throughput.",
    ]
