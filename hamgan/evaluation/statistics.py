"""One pass over a set of images: what FID, IS, KID and the rest need to know of it, summed over all processes."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.images import GeneratedImages, Images
from hamgan.evaluation.metrics.fid import Moments
from hamgan.evaluation.metrics.inception_score import InceptionScore


@dataclass
class FeatureStatistics:
    """The features of a set of images: count, mean [D], covariance [D, D] (float64, CPU) and where they come from."""

    count: int | None
    """Number of images; None where a file does not say (`mu` and `sigma` alone)."""
    mean: Tensor
    covariance: Tensor
    description: dict[str, Any] = field(default_factory=dict)
    """Source, hash, resolution, extractor: plain values for a row or a file header."""
    features: Tensor | None = None
    """All features, float32 [N, D] on the CPU, where a metric needs them."""
    labels: Tensor | None = None
    """Class indices [N]."""
    class_names: list[str] | None = None
    inception_score: tuple[float, float] | None = None
    images_per_second: float | None = None


@torch.inference_mode()
def measure(
    images: Images,
    extractor: FeatureExtractor,
    *,
    batch_size: int = 64,
    is_splits: int | None = None,
    keep_features: bool = False,
    progress: bool = False,
    title: str = "features",
    processes: Processes | None = None,
) -> FeatureStatistics:
    """Extract the features of all images; every process takes its share and all return the same statistics.

    `is_splits` asks for the Inception Score as well. Raises ConfigError on every process when one of them met an image
    that cannot be used, or features that are not finite.
    """
    processes = processes or Processes.current()
    total, share = len(images), processes.share(len(images))
    moments = Moments(extractor.dimension, _sum_device(extractor.device))
    score = InceptionScore(total, is_splits, extractor.classes, moments.total.device) if is_splits else None
    kept: list[Tensor] = []
    digest, problem, start = SetDigest(), "", time.perf_counter()
    bar = tqdm(total=len(share), desc=title, unit="img", disable=not (progress and processes.is_main), smoothing=0.1)
    try:
        with images.watched() if isinstance(images, GeneratedImages) else nullcontext():
            for first, batch in _batches(images, share, batch_size, digest):
                features, logits = extractor(batch)
                moments.update(features)
                if score:
                    score.update(logits, first)
                if keep_features:
                    kept.append(features.cpu())
                bar.update(len(batch))
    except ConfigError as error:
        problem = str(error)
    bar.close()
    _raise_on_every_process(problem, processes)
    moments.reduce(processes)
    seconds = time.perf_counter() - start
    if not bool(torch.isfinite(moments.outer).all()):
        raise ConfigError(f"features of {title} are not finite: the images or the extractor's weights are damaged")
    mean, covariance = moments.mean_and_covariance()
    if score:
        score.reduce(processes)
    rows = torch.cat(kept) if kept else torch.empty(0, extractor.dimension)
    return FeatureStatistics(
        count=total,
        mean=mean.cpu(),
        covariance=covariance.cpu(),
        description=_describe(images, extractor, digest, processes),
        features=processes.gather_rows(rows, total) if keep_features else None,
        labels=images.labels,
        class_names=images.class_names,
        inception_score=score.result() if score else None,
        images_per_second=total / seconds,
    )


def _sum_device(device: torch.device) -> torch.device:
    # Apple's GPUs have no float64.
    return torch.device("cpu") if device.type == "mps" else device


def _batches(images: Images, share: range, batch_size: int, digest: "SetDigest") -> Iterator[tuple[int, Tensor]]:
    """The first index and the images of every batch; files are read by a thread while the last batch is in use."""
    starts = list(range(share.start, share.stop, batch_size))

    def read(first: int) -> Tensor:
        batch = images.read(range(first, min(first + batch_size, share.stop)))
        digest.update(batch)
        return batch

    if isinstance(images, GeneratedImages):
        # A generator shares the device with the extractor: a thread would only take turns with it.
        for first in starts:
            yield first, images.read(range(first, min(first + batch_size, share.stop)))
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, starts[0]) if starts else None
        for position, first in enumerate(starts):
            assert ahead is not None
            batch = ahead.result()
            if position + 1 < len(starts):
                ahead = reader.submit(read, starts[position + 1])
            yield first, batch


def _raise_on_every_process(problem: str, processes: Processes) -> None:
    if processes.any(bool(problem)):
        raise ConfigError(problem or "another process stopped; its message says why")


def _describe(images: Images, extractor: FeatureExtractor, digest: "SetDigest", processes: Processes) -> dict[str, Any]:
    size = images.read([0]).shape[-2:]
    described = images.describe()
    return {
        "kind": images.kind,
        **described,
        "count": len(images),
        "hash": digest.hexdigest(processes) if images.kind != "generator" else None,
        "resolution": int(size[0]) if size[0] == size[1] else f"{size[1]}x{size[0]}",
        **extractor.describe(),
    }


class SetDigest:
    """A hash of a set of images, whatever their order and whoever read which: sums of sha256, mod 2^256."""

    LIMBS = 8

    def __init__(self) -> None:
        self.value = 0

    def update(self, images: Tensor) -> None:
        """Add uint8 images [B, 3, H, W]."""
        shape = repr(tuple(images.shape[1:])).encode()
        for image in images.contiguous().cpu().numpy():
            self.value += int.from_bytes(hashlib.sha256(shape + image.tobytes()).digest())

    def hexdigest(self, processes: Processes) -> str:
        """The first 16 hexadecimal digits over the images of all processes."""
        limbs = [(self.value >> (32 * i)) & 0xFFFFFFFF for i in range(self.LIMBS)]
        sums = torch.tensor(limbs, dtype=torch.int64)
        processes.sum_(sums)
        total = sum(limb << (32 * i) for i, limb in enumerate(sums.tolist())) % 2**256
        return hashlib.sha256(total.to_bytes(32)).hexdigest()[:16]
