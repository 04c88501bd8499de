"""Measure FID and the Inception Score by each package that does, this one among them, and extract its features.

torchmetrics and pytorch-fid are development dependencies. All read one Inception weights file, in torch-fidelity's
format.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmarks.networks import pytorch_fid_network
from hamgan.evaluation import FeatureExtractor, Resources, load_extractor
from hamgan.evaluation.inputs.images import FolderImages
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.files import sha256

Extract = Callable[[Tensor], object]


@dataclass(frozen=True)
class Numbers:
    """Hold FID and Inception Score, where a package gives them, and the seconds of its whole call."""

    fid: float | None
    score: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluator:
    """Hold a way to measure: ``extract`` takes uint8 [B, 3, H, W] to features, ``numbers`` measures two folders."""

    name: str
    extract: Extract
    numbers: Callable[[Path, Path], Numbers]
    why: str
    """Reason why its numbers differ from torch-fidelity's."""


def load_evaluators(
    weights: Path, batch_size: int = 16, *, splits: int = 10, device: torch.device, compiled: bool = False
) -> list[Evaluator]:
    """Load this evaluator, compiled as well where asked, torch-fidelity, torchmetrics (twice) and pytorch-fid.

    ``splits`` are those of the Inception Score.
    """
    ours = [("hamgan", own_extractor(weights, device=device), "batch norm folded, channels-last")]
    if compiled:
        ours.append(("hamgan, compiled", own_extractor(weights, device=device, compiled=True), "the same, compiled"))
    return [
        *(
            Evaluator(name, extractor, _own_numbers(extractor, batch_size, splits), why)
            for name, extractor, why in ours
        ),
        _torch_fidelity(weights, batch_size, splits, device),
        _torchmetrics(weights, batch_size, device, False, "torchmetrics, antialias=False", "no difference"),
        _torchmetrics(weights, batch_size, device, True, "torchmetrics, default", "its resize antialiases"),
        _pytorch_fid(weights, batch_size, device),
    ]


def measure_evaluator(evaluator: Evaluator, samples: Path, reference: Path) -> Numbers:
    """Measure two flat folders of PNGs by one evaluator."""
    start = time.perf_counter()
    found = evaluator.numbers(samples, reference)
    return replace(found, seconds=time.perf_counter() - start)


def own_extractor(weights: Path, *, device: torch.device, compiled: bool = False) -> FeatureExtractor:
    """Load our Inception with whatever weights file is given."""
    return load_extractor(weights=weights, weights_sha256=sha256(weights), device=device, compiled=compiled)


def _own_numbers(extractor: FeatureExtractor, batch_size: int, splits: int) -> Callable[[Path, Path], Numbers]:
    def numbers(samples: Path, reference: Path) -> Numbers:
        resources = Resources(extractor, batch_size)
        found = resources.measure(FolderImages(samples), is_splits=splits)
        real = resources.measure(FolderImages(reference))
        score = found.inception_score[0] if found.inception_score else None
        return Numbers(frechet_distance(real.mean, real.covariance, found.mean, found.covariance), score)

    return numbers


def _torch_fidelity(weights: Path, batch_size: int, splits: int, device: torch.device) -> Evaluator:
    import torch_fidelity

    features = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(weights))
    network.to(device).eval()

    def numbers(samples: Path, reference: Path) -> Numbers:
        found = torch_fidelity.calculate_metrics(
            input1=str(samples),
            input2=str(reference),
            cuda=device.type == "cuda",
            batch_size=batch_size,
            isc=True,
            isc_splits=splits,
            fid=True,
            feature_extractor_weights_path=str(weights),
            cache=False,
            verbose=False,
            save_cpu_ram=True,
        )
        return Numbers(found["frechet_inception_distance"], found["inception_score_mean"])

    return Evaluator("torch-fidelity", lambda images: network(images.to(device)), numbers, "")


def _torchmetrics(
    weights: Path, batch_size: int, device: torch.device, antialias: bool, name: str, why: str
) -> Evaluator:
    from torchmetrics.image.fid import FrechetInceptionDistance

    def make_metric() -> Any:
        metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights), antialias=antialias)
        return metric.set_dtype(torch.float64).to(device)

    def numbers(samples: Path, reference: Path) -> Numbers:
        fid = make_metric()
        for folder, is_real in ((samples, False), (reference, True)):
            for batch in _read_batches(folder, batch_size):
                fid.update(batch.to(device), real=is_real)
        return Numbers(float(fid.compute()))

    network = make_metric().inception
    return Evaluator(name, lambda images: network(images.to(device)), numbers, why)


def _pytorch_fid(weights: Path, batch_size: int, device: torch.device) -> Evaluator:
    from pytorch_fid.fid_score import calculate_frechet_distance  # type: ignore[import-untyped]  # ships none

    network = pytorch_fid_network(weights).to(device)

    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(images.to(device).float() / 255)[0]
        return features.flatten(1)

    @torch.inference_mode()
    def numbers(samples: Path, reference: Path) -> Numbers:
        moments: list[np.ndarray] = []
        for folder in (samples, reference):
            rows = np.concatenate(
                [extract(batch).double().cpu().numpy() for batch in _read_batches(folder, batch_size)]
            )
            moments += [rows.mean(0), np.cov(rows, rowvar=False)]
        # Of fewer images than features the product is singular: its sqrtm takes a minute and mostly fails.
        is_regular = rows.shape[0] > rows.shape[1]
        return Numbers(float(calculate_frechet_distance(*moments)) if is_regular else None)

    return Evaluator("pytorch-fid", extract, numbers, "other resize (half-pixel centres); its sqrtm needs 2,049 images")


def _read_batches(folder: Path, batch_size: int) -> list[Tensor]:
    images = FolderImages(folder)
    return [images.read(range(i, min(i + batch_size, len(images)))) for i in range(0, len(images), batch_size)]
