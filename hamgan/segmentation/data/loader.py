"""Read and augment training samples in threads, in an order that is a function of the seed and the images seen."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

import torch
from torch import Tensor

from hamgan.data.loader import RETRY_SECONDS, image_order
from hamgan.distributed.cores import core_count, one_core_threads
from hamgan.errors import DataError
from hamgan.segmentation.augment import TrainingSample, augment, random_at
from hamgan.segmentation.data.source import Sample, SegmentationSource
from hamgan.segmentation.schema import AugmentConfig

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Hold the training samples of one process and backward pass."""

    images: Tensor
    """uint8 [b, 3, crop, crop]."""
    labels: Tensor
    """uint8 [b, crop, crop]."""
    sizes: Tensor
    """int64 [b, 2]: height and width of each image without padding."""


class TrainingLoader(Iterator[Batch]):
    """Yield endless batches of this rank: a contiguous slice of the global batch of ``batch_size`` samples.

    Sample k of the run is image k of `hamgan.data.image_order`, augmented as a function of (seed, stream, k).
    ``prefetch`` batches are prepared ahead; with ``pin`` they are in page-locked memory.
    """

    def __init__(
        self,
        source: SegmentationSource,
        config: AugmentConfig,
        *,
        seed: int,
        start: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        stream: int = 0,
        threads: int | None = None,
        prefetch: int = 3,
        pin: bool = False,
    ) -> None:
        self._source, self._config, self._seed, self._stream, self._pin = source, config, seed, stream, pin
        self._batch_size, self._share = batch_size, batch_size // world_size
        self._position = start + rank * self._share
        self._pool = one_core_threads(threads or core_count())
        self._waiting: deque[list[Future[TrainingSample]]] = deque()
        for _ in range(max(1, prefetch)):
            self._start_batch()

    def _start_batch(self) -> None:
        positions = range(self._position, self._position + self._share)
        order = image_order(len(self._source), self._seed, positions.start, self._share, self._stream)
        futures = [self._pool.submit(self._make, index, p) for index, p in zip(order.tolist(), positions, strict=True)]
        self._waiting.append(futures)
        self._position += self._batch_size

    def _make(self, index: int, position: int) -> TrainingSample:
        return augment(self._read(index), self._config, random_at(self._seed, self._stream, position))

    def _read(self, index: int) -> Sample:
        """Read a sample, with several attempts for short outages of file servers."""
        for seconds in RETRY_SECONDS:
            try:
                return self._source.read(index)
            except (OSError, DataError) as error:
                if not isinstance(error.__cause__ or error, OSError):
                    raise
                log.warning("reading training images failed, next attempt in %g s: %s", seconds, error)
                time.sleep(seconds)
        return self._source.read(index)

    def __next__(self) -> Batch:
        samples = [future.result() for future in self._waiting[0]]
        self._waiting.popleft()
        self._start_batch()
        parts = (
            torch.stack([sample.image for sample in samples]),
            torch.stack([sample.labels for sample in samples]),
            torch.tensor([sample.size for sample in samples]),
        )
        return Batch(*(part.pin_memory() if self._pin else part for part in parts))

    def close(self) -> None:
        """Stop the threads; safe to call twice."""
        self._pool.shutdown(cancel_futures=True)
