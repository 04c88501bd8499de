"""The same images measured by this evaluator and by the libraries that it stands beside, with times and reasons.

torchmetrics and pytorch-fid are development dependencies; both read the same Inception weights file.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.evaluation.features import FeatureExtractor, load_extractor
from hamgan.evaluation.images import FolderImages
from hamgan.evaluation.inception import file_sha256
from hamgan.evaluation.metrics import frechet_distance
from hamgan.evaluation.statistics import measure


@dataclass(frozen=True)
class Measured:
    """A line of the table."""

    by: str
    fid: float
    score: float | None
    seconds: float
    images_per_second: float
    why: str
    """What explains a difference."""


def compare_evaluators(
    samples: str | Path, reference: str | Path, weights: str | Path, batch_size: int = 16, compiled: bool = False
) -> list[Measured]:
    """Two flat folders of PNGs by this evaluator, torch-fidelity, torchmetrics (twice) and pytorch-fid, on the CPU."""
    sets = FolderImages(Path(samples)), FolderImages(Path(reference))
    count = len(sets[0]) + len(sets[1])
    lines = []
    runs: list[tuple[str, Callable[[], tuple[float, float | None]], str]] = [
        ("hamgan", lambda: _ours(sets, weights, batch_size, False), "batch norm folded, channels-last"),
        ("torch-fidelity", lambda: _torch_fidelity(samples, reference, weights, batch_size), ""),
        ("torchmetrics, antialias=False", lambda: _torchmetrics(sets, weights, batch_size, False), "no difference"),
        ("torchmetrics, default", lambda: _torchmetrics(sets, weights, batch_size, True), "its resize antialiases"),
        ("pytorch-fid", lambda: _pytorch_fid(sets, weights, batch_size), "other resize (half-pixel centres)"),
    ]
    if compiled:
        runs.insert(1, ("hamgan, compiled", lambda: _ours(sets, weights, batch_size, True), "time includes compiling"))
    for name, run, why in runs:
        start = time.perf_counter()
        fid, score = run()
        seconds = time.perf_counter() - start
        lines.append(Measured(name, fid, score, seconds, count / seconds, why))
    return lines


def as_markdown(lines: list[Measured]) -> str:
    """The table, for the README."""
    rows = ["| measured by | FID | IS | seconds | images/s | why it differs |", "| --- | --- | --- | --- | --- | --- |"]
    for line in lines:
        score = "" if line.score is None else f"{line.score:.6f}"
        numbers = f"{line.fid:.6f} | {score} | {line.seconds:.1f} | {line.images_per_second:.2f}"
        rows.append(f"| {line.by} | {numbers} | {line.why} |")
    return "\n".join(rows)


def extractor_speed(extractor: Callable[[Tensor], Any], images: Tensor, seconds: float = 5.0) -> float:
    """Images per second of an extractor alone on a batch [B, 3, H, W], after one call to warm up."""
    with torch.inference_mode():
        extractor(images)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            extractor(images)
            done += len(images)
    return done / (time.perf_counter() - start)


def own_extractor(weights: str | Path, compiled: bool = False) -> FeatureExtractor:
    """Our Inception on the CPU, with whatever weights file is given."""
    sha256 = file_sha256(Path(weights))
    return load_extractor(weights=weights, weights_sha256=sha256, device="cpu", compiled=compiled)


def _ours(
    sets: tuple[FolderImages, FolderImages], weights: str | Path, batch_size: int, compiled: bool
) -> tuple[float, float | None]:
    extractor = own_extractor(weights, compiled)
    found, real = (measure(images, extractor, batch_size=batch_size, is_splits=10) for images in sets)
    assert found.inception_score is not None
    distance = frechet_distance(real.mean, real.covariance, found.mean, found.covariance)
    return distance, found.inception_score[0]


def _torch_fidelity(
    samples: str | Path, reference: str | Path, weights: str | Path, batch_size: int
) -> tuple[float, float | None]:
    import torch_fidelity

    found = torch_fidelity.calculate_metrics(
        input1=str(samples),
        input2=str(reference),
        cuda=False,
        batch_size=batch_size,
        isc=True,
        fid=True,
        feature_extractor_weights_path=str(weights),
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    return found["frechet_inception_distance"], found["inception_score_mean"]


def _torchmetrics(
    sets: tuple[FolderImages, FolderImages], weights: str | Path, batch_size: int, antialias: bool
) -> tuple[float, float | None]:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=antialias)
    metric.set_dtype(torch.float64)
    for images, is_real in zip(sets, (False, True), strict=True):
        for first in range(0, len(images), batch_size):
            metric.update(images.read(range(first, min(first + batch_size, len(images)))), real=is_real)
    return float(metric.compute()), None


def _pytorch_fid(
    sets: tuple[FolderImages, FolderImages], weights: str | Path, batch_size: int
) -> tuple[float, float | None]:
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]  # ships none

    network = _pytorch_fid_network(weights)
    moments = []
    with torch.inference_mode():
        for images in sets:
            parts = []
            for first in range(0, len(images), batch_size):
                batch = images.read(range(first, min(first + batch_size, len(images))))
                parts.append(network(batch.float() / 255)[0].flatten(1).double().numpy())
            rows = np.concatenate(parts)
            moments += [rows.mean(0), np.cov(rows, rowvar=False)]
    return float(calculate_frechet_distance(*moments)), None


def _pytorch_fid_network(weights: str | Path) -> torch.nn.Module:
    """pytorch-fid's network with weights from a file: its own constructor would download them."""
    from pytorch_fid import inception  # type: ignore[import-untyped]  # ships none

    state = torch.load(weights, map_location="cpu", weights_only=True)
    download = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_args, **_options: state
    try:
        return inception.InceptionV3([3]).eval()
    finally:
        inception.load_state_dict_from_url = download
