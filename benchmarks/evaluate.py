"""Features and FID beside torch-fidelity, torchmetrics and pytorch-fid: the same images, the same weights file.

The images are held-out crops of the embedded photographs against train crops, at 128 px. Without Inception weights
(and without a network to fetch them) random ones in the same file format stand in: times and agreement do not depend on
the values, the FID itself then means nothing outside the table.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.evaluators import Evaluator, Numbers, load_evaluators, measured, save_random_inception
from benchmarks.report import Report, Table
from benchmarks.timing import Timings, interleaved
from hamgan.data import open_source
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, measure
from hamgan.evaluation.features.inception import inception_weights
from hamgan.evaluation.inputs.images import ArrayImages
from hamgan.evaluation.metrics.fid import frechet_distance

RESOLUTION = 128
DIMENSION = 2048
BASE = "torch-fidelity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m benchmarks evaluate``."""
    parser.set_defaults(rounds=5)
    parser.add_argument("--weights", type=Path, help="Inception weights, torch-fidelity's pt_inception file")
    parser.add_argument("--images", type=int, default=64, help="images a side for the table of numbers (default: 64)")
    parser.add_argument("--batch", type=int, default=16, help="images per forward (default: 16)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled extractor as well")


def run(options: argparse.Namespace) -> Report:
    """Numbers and speed of every evaluator, FID's matrix part, and what the pipeline adds to the extractor."""
    if options.images < 10:
        raise ConfigError(f"--images is {options.images}; the Inception Score's 10 splits need 10 or more")
    device: torch.device = options.device
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights, kind = _weights(options.weights, folder)
        evaluators = load_evaluators(weights, options.batch, device=device, compiled=options.compile)
        sets = {split: _save_crops(split, options.images, folder / split) for split in ("val", "train")}
        numbers = [measured(evaluator, sets["train"], sets["val"]) for evaluator in evaluators]
        speed = _extraction(evaluators, options.batch, options.rounds, device)
        pipeline = _pipeline(evaluators[0], folder, options.batch, options.rounds, device)
    matrix = _matrix_part(options.rounds)
    return Report(
        "Evaluation",
        f"{options.images} images a side at {RESOLUTION} px, {kind} weights, batches of {options.batch}, "
        f"{torch.get_num_threads()} thread(s); in turn, medians of {options.rounds} rounds in {speed.clock} time.",
        [_numbers_table(evaluators, numbers, speed, options.batch), _matrix_table(matrix), _pipeline_table(pipeline)],
        _verdict(speed, matrix, pipeline),
        {
            "numbers": {one.name: vars(found) for one, found in zip(evaluators, numbers, strict=True)},
            "extraction": speed.to_json(),
            "matrix_part": matrix.to_json(),
            "pipeline": pipeline.to_json(),
        },
    )


def _weights(given: Path | None, folder: Path) -> tuple[Path, str]:
    if given is not None and not given.is_file():
        raise ConfigError(f"--weights {given} is not a file")
    if given is not None:
        return given, "given"
    try:
        return inception_weights(None, allow_download=False), "the official"
    except ConfigError:
        return save_random_inception(folder / "random.pth"), "random"


def _save_crops(split: str, count: int, folder: Path) -> Path:
    source = open_source("photos", split, RESOLUTION)
    folder.mkdir()
    for index, image in enumerate(source.read(_spread(len(source), count))):
        Image.fromarray(image).save(folder / f"{index:05d}.png")
    return folder


def _spread(total: int, count: int) -> np.ndarray:
    return np.linspace(0, total - 1, count).astype(np.int64)


def _crops(count: int) -> Tensor:
    source = open_source("photos", "val", RESOLUTION)
    return torch.from_numpy(np.asarray(source.read(_spread(len(source), count)))).permute(0, 3, 1, 2).contiguous()


def _extraction(evaluators: list[Evaluator], batch: int, rounds: int, device: torch.device) -> Timings:
    images = _crops(batch)

    def work(evaluator: Evaluator) -> Callable[[], object]:
        @torch.inference_mode()
        def extract() -> None:
            evaluator.extract(images)

        return extract

    return interleaved({one.name: work(one) for one in evaluators}, rounds, device=device)


def _matrix_part(rounds: int) -> Timings:
    """FID from two means and covariances of 2048 features, by our form and by those of the other packages."""
    from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]  # ships none
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    moments = [_random_moments(seed) for seed in (0, 1)]
    arrays = [{"mu": mean.numpy(), "sigma": covariance.numpy()} for mean, covariance in moments]
    plain = [value for one in arrays for value in (one["mu"], one["sigma"])]
    return interleaved(
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


def _pipeline(ours: Evaluator, folder: Path, batch: int, rounds: int, device: torch.device) -> Timings:
    """The bare extractor and `measure`, which reads, hashes and sums as well, on the same 8 batches."""
    pixels = _crops(8 * batch)
    np.savez(folder / "pixels.npz", arr_0=pixels.permute(0, 2, 3, 1).numpy())
    images, extractor = ArrayImages(folder / "pixels.npz"), ours.extract
    assert isinstance(extractor, FeatureExtractor)

    def bare() -> None:
        for part in pixels.split(batch):
            extractor(part)

    def whole() -> Any:
        return measure(images, extractor, batch_size=batch, is_splits=10)

    return interleaved({"bare": bare, "whole": whole}, rounds, device=device)


def _numbers_table(evaluators: list[Evaluator], numbers: list[Numbers], speed: Timings, batch: int) -> Table:
    rows: list[Sequence[object]] = []
    for one, found in zip(evaluators, numbers, strict=True):
        fid, score = ("-" if value is None else f"{value:.6f}" for value in (found.fid, found.score))
        rate, share = batch / speed.median(one.name), speed.ratio(BASE, one.name)
        rows.append([one.name, fid, score, found.seconds, rate, share, one.why])
    headers = ["measured by", "FID", "IS", "whole call, s", "extraction, images/s", f"times {BASE}", "why it differs"]
    return Table(headers, rows, "The same images")


def _matrix_table(matrix: Timings) -> Table:
    rows: list[Sequence[object]] = [[name, matrix.median(name), matrix.ratio(name, BASE)] for name in matrix.seconds]
    return Table(["FID's matrix part, 2048 features", "s", f"of {BASE}'s"], rows, "From moments to FID")


def _pipeline_table(pipeline: Timings) -> Table:
    rows: list[Sequence[object]] = [
        ["extractor alone", pipeline.median("bare")],
        ["reading, hashes, FID and IS sums", pipeline.median("whole")],
    ]
    return Table(["128 px images", "s"], rows, "What the pipeline adds")


def _verdict(speed: Timings, matrix: Timings, pipeline: Timings) -> list[str]:
    sentences = [
        f"{name}: {speed.ratio(BASE, name):.2f} times the images/s of {BASE}."
        for name in speed.seconds
        if name.startswith("hamgan")
    ]
    ours = next(iter(matrix.seconds))
    sentences.append(
        f"FID's matrix part takes {matrix.median(ours):.2f} s, {matrix.ratio(ours, BASE):.2f} of {BASE}'s."
    )
    share = pipeline.ratio("bare", "whole")
    sentences.append(f"The whole pipeline reaches {share:.0%} of the extractor's bare throughput.")
    return sentences
