"""Pass over a set of images once, and sum the statistics that metrics need over all processes."""

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.generated import GeneratedImages
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.metrics.fid import Moments
from hamgan.evaluation.metrics.inception_score import InceptionScore
from hamgan.files import JsonObject
from hamgan.progress import ProgressBar

LONG = 60.0
"""Duration in seconds above which a pass announces how long it will take."""


@dataclass
class FeatureStatistics:
    """Hold the statistics of the features of a set of images, and the origin of the images."""

    count: int | None
    """Number of images; None if a file does not state it (only ``mu`` and ``sigma``)."""
    mean: Tensor
    """Mean feature [D], float64 on the CPU."""
    covariance: Tensor
    """Unbiased covariance [D, D], float64 on the CPU."""
    description: JsonObject = field(default_factory=dict)
    """Source, hash, resolution, extractor: plain values for a row or a file header."""
    features: Tensor | None = None
    """All features, float32 [N, D] on the CPU, if a metric needs them."""
    labels: Tensor | None = None
    """Class indices [N]."""
    class_names: list[str] | None = None
    inception_score: tuple[float, float] | None = None
    """Mean and standard deviation over the splits."""
    images_per_second: float | None = None

    @property
    def kept_features(self) -> Tensor:
        """Return the features; they must have been kept."""
        assert self.features is not None, "the pass over the images was asked to keep its features"
        return self.features


def feature_bytes(count: int, dimension: int) -> int:
    """Return the bytes of the features of ``count`` images."""
    return 4 * count * dimension


@dataclass(frozen=True)
class Resources:
    """Hold the resources of an evaluation; only the extractor affects the numbers."""

    extractor: FeatureExtractor
    batch_size: int = 64
    """Images per process and forward."""
    progress: bool = False
    """Whether to show a progress bar."""
    cache: Path | None = None
    """Folder for cached features of references; None for no cache."""
    memory_gib: float = 8.0
    """Limit of memory per process for features of both sides and all extractors together."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; it must be 1 or more")

    def check_memory(self, needed: int, whose: str) -> None:
        """Raise ConfigError if kept features of ``needed`` bytes would exceed the limit; ``whose`` describes them."""
        if needed > self.memory_gib * 2**30:
            raise ConfigError(
                f"the features of {whose} take about {needed / 2**30:.1f} GiB on every process, more than "
                f"{self.memory_gib:g} (--memory-gib); FID and the Inception Score keep no features"
            )

    def measure(
        self, images: Images, title: str = "features", *, is_splits: int | None = None, keep_features: bool = False
    ) -> FeatureStatistics:
        """Do what `measure_together` says by one extractor; ``is_splits`` asks for the Inception Score as well."""
        wanted = [Wanted(self.extractor, is_splits, keep_features)]
        return measure_together(images, wanted, batch_size=self.batch_size, progress=self.progress, title=title)[0]


@dataclass(frozen=True)
class Wanted:
    """Describe what a pass over images collects with one extractor."""

    extractor: FeatureExtractor
    is_splits: int | None = None
    """Number of parts for the Inception Score; None does not compute it."""
    keep_features: bool = False


class _Sums:
    """Collect what a `Wanted` asks for."""

    def __init__(self, wanted: Wanted, total: int) -> None:
        extractor = self.extractor = wanted.extractor
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if extractor.device.type == "mps" else extractor.device
        self.moments = Moments(extractor.dimension, device)
        splits = wanted.is_splits
        self.score = InceptionScore(total, splits, extractor.classes, device) if splits else None
        self.kept = [torch.empty(0, extractor.dimension)] if wanted.keep_features else None

    def update(self, batch: Tensor, first: int) -> None:
        """Add a batch of images [B, 3, H, W] whose first one has the index ``first``."""
        features, logits = self.extractor(batch)
        self.moments.update(features)
        if self.score:
            self.score.update(logits, first)
        if self.kept is not None:
            self.kept.append(features.cpu())

    def statistics(self, images: Images, digest: str, title: str) -> FeatureStatistics:
        """Combine the sums of all processes; raises ConfigError for features that are not finite."""
        processes, total = Processes.current(), len(images)
        self.moments.reduce(processes)
        if not bool(torch.isfinite(self.moments.outer).all()):
            raise ConfigError(f"features of {title} are not finite: the images or the extractor's weights are damaged")
        mean, covariance = self.moments.mean_and_covariance()
        if self.score:
            self.score.reduce(processes)
        return FeatureStatistics(
            count=total,
            mean=mean.cpu(),
            covariance=covariance.cpu(),
            description=_describe(images, self.extractor, digest),
            features=None if self.kept is None else processes.gather_rows(torch.cat(self.kept), total),
            labels=images.labels,
            class_names=images.class_names,
            inception_score=self.score.result() if self.score else None,
        )


@torch.inference_mode()
def measure_together(
    images: Images,
    wanted: Sequence[Wanted],
    *,
    batch_size: int = 64,
    progress: bool = False,
    title: str = "features",
) -> list[FeatureStatistics]:
    """Pass over all images once; returns their statistics by each extractor.

    Processes divide the images, and all return the same. Raises ConfigError on every process if any of them finds an
    unusable image or features that are not finite.
    """
    processes, total = Processes.current(), len(images)
    if total < 2:
        raise ConfigError(f"{images.describe()['source']} has one image; a covariance needs two at least")
    each = [_Sums(one, total) for one in wanted]
    digest, problem, start = SetDigest(), "", time.perf_counter()
    share, warm = processes.share(total), 0.0
    bar = ProgressBar(len(share), title, disable=not (progress and processes.is_main))
    try:
        with bar, images.refuse_nan() if isinstance(images, GeneratedImages) else nullcontext():
            for first, batch in _read_batches(images, share, batch_size, digest):
                for sums in each:
                    sums.update(batch, first)
                bar.update(len(batch))
                if first == share.start + batch_size and not bar.disable:
                    _print_expected_duration(bar, time.perf_counter() - warm, len(batch))
                warm = time.perf_counter()
    except ConfigError as error:
        problem = str(error)
    if processes.any(bool(problem)):
        raise ConfigError(problem or "another process stopped; its message says why")
    name = digest.hexdigest(processes)
    found = [sums.statistics(images, name, title) for sums in each]
    rate = total / (time.perf_counter() - start)
    return [replace(one, images_per_second=rate) for one in found]


def _print_expected_duration(bar: ProgressBar, seconds: float, images: int) -> None:
    """Print the expected duration of a long pass, measured on its second batch, since the first one warms up."""
    left = seconds / images * ((bar.total or 0) - bar.n)
    if left > LONG:
        minutes = max(2, round(left / 60))
        bar.write(f"{bar.desc}: {bar.total:,} images take about {minutes:,} minutes", file=sys.stderr)


def _read_batches(images: Images, share: range, batch_size: int, digest: "SetDigest") -> Iterator[tuple[int, Tensor]]:
    """Yield the first index and the images of every batch; a thread reads files ahead."""
    starts = range(share.start, share.stop, batch_size)

    def read(first: int) -> Tensor:
        batch = images.read(range(first, min(first + batch_size, share.stop)))
        if not isinstance(images, GeneratedImages):
            digest.update(batch)
        return batch

    if isinstance(images, GeneratedImages):
        # A generator shares the device with the extractor, so a thread would gain nothing.
        yield from ((first, read(first)) for first in starts)
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = {first: reader.submit(read, first) for first in starts[:1]}
        for first, following in zip_longest(starts, starts[1:]):
            if following is not None:
                ahead[following] = reader.submit(read, following)
            yield first, ahead.pop(first).result()


def _describe(images: Images, extractor: FeatureExtractor, digest: str) -> JsonObject:
    width, height = images.size
    return {
        "kind": images.kind,
        **images.describe(),
        "count": len(images),
        "hash": digest if images.kind != "generator" else None,
        "resolution": width if width == height else f"{width}x{height}",
        **extractor.describe(),
    }


class SetDigest:
    """Hash a set of images independently of order and processes: the sum of their sha256, mod 2^256."""

    LIMBS = 8

    def __init__(self) -> None:
        self.value = 0

    def update(self, images: Tensor) -> None:
        """Add uint8 images [B, 3, H, W]."""
        shape = repr(tuple(images.shape[1:])).encode()
        for image in images.contiguous().cpu().numpy():
            self.value += int.from_bytes(hashlib.sha256(shape + image.tobytes()).digest())

    def hexdigest(self, processes: Processes) -> str:
        """Return the first 16 hexadecimal digits over the images of all processes."""
        limbs = [(self.value >> (32 * i)) & 0xFFFFFFFF for i in range(self.LIMBS)]
        sums = torch.tensor(limbs, dtype=torch.int64)
        processes.sum_(sums)
        total = sum(limb << (32 * i) for i, limb in enumerate(sums.tolist())) % 2**256
        return hashlib.sha256(total.to_bytes(32)).hexdigest()[:16]
