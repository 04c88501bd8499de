"""Order training images as a function of the seed and the images seen, and gather batches in a thread."""

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hamgan.data.source import ImageSource, ReadsAhead
from hamgan.errors import ConfigError, DataError, one_line

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 4.0, 15.0)
"""Waits between attempts to read a batch, for short outages of file servers."""
READ_AHEAD = 4
"""Number of batches that a source is told to read ahead, since disks serve many requests at once."""


@lru_cache(maxsize=2)
def _epoch_order(length: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    # RandomState's stream never changes (NEP 19), Generator's may: a run resumed with another NumPy must see the same
    # order.
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, epoch] + ([stream] if stream else [])
    order = np.random.RandomState(key).permutation(length)
    order.setflags(write=False)
    return order


def image_order(source_length: int, seed: int, start: int, count: int, stream: int = 0) -> np.ndarray:
    """Return indices int64 [count] at positions start .. start + count of the endless training stream.

    Every epoch (source_length positions) is an exact shuffle and a function of (seed, stream, epoch) only, so resuming
    at a position needs no replay. One epoch's order is kept in memory: 10 MB and 30 ms for ImageNet.
    """
    if source_length < 1:
        raise DataError("a source without images has no order")
    parts = []
    while count > 0:
        epoch, offset = divmod(start, source_length)
        part = _epoch_order(source_length, seed, epoch, stream)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class BatchLoader(Iterator[tuple[Tensor, Tensor]]):
    """Yield endless batches of this rank: images uint8 [b, H, W, 3] and labels int64 [b], b = batch_size / world_size.

    Batch k of all ranks together is positions ``start + k * batch_size`` and following of `image_order`; a rank gets a
    contiguous slice. A background thread gathers ``prefetch`` batches ahead. With ``pin`` they are in page-locked
    memory, from which a GPU copies without waiting.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        seed: int,
        start: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 3,
        pin: bool = False,
        stream: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ConfigError(f"batch size {batch_size} does not divide among {world_size} processes")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is outside 0 to {world_size - 1}")
        self._source, self._seed, self._stream, self._pin = source, seed, stream, pin
        self._batch_size, self._share = batch_size, batch_size // world_size
        self._start = start + rank * self._share
        self._labels = torch.from_numpy(np.ascontiguousarray(source.labels))
        self._ready: queue.Queue[tuple[Tensor, Tensor] | DataError] = queue.Queue(max(1, prefetch))
        self._closed = threading.Event()
        device = torch.cuda.current_device() if pin else None
        self._thread = threading.Thread(target=self._fill, args=(device,), name="batch-loader", daemon=True)
        self._thread.start()

    def _fill(self, device: int | None) -> None:
        if device is not None:  # otherwise page-locked memory of this thread would create a context on the first GPU
            torch.cuda.set_device(device)
        position = self._start
        upcoming: deque[np.ndarray] = deque()
        while not self._closed.is_set():
            try:
                while len(upcoming) <= READ_AHEAD:
                    ahead = position + len(upcoming) * self._batch_size
                    upcoming.append(image_order(len(self._source), self._seed, ahead, self._share, self._stream))
                    if isinstance(self._source, ReadsAhead):
                        self._source.expect(upcoming[-1])
                batch = self._gather(upcoming.popleft())
            except BaseException as error:  # whatever ends this thread, training must not wait for it
                failure = DataError(f"reading training images at position {position} failed: {one_line(error)}")
                failure.__cause__ = error
                self._ready.put(failure)
                return
            self._ready.put(batch)
            position += self._batch_size

    def _gather(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        size = self._source.resolution
        images = torch.empty((len(indices), size, size, 3), dtype=torch.uint8, pin_memory=self._pin)
        labels = torch.empty(len(indices), dtype=torch.int64, pin_memory=self._pin)
        self._read(indices, images.numpy())
        torch.index_select(self._labels, 0, torch.from_numpy(indices), out=labels)
        return images, labels

    def _read(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Read images from the source, with several attempts."""
        for seconds in RETRY_SECONDS:
            try:
                self._source.read(indices, out=out)
                return
            except (OSError, DataError) as error:
                log.warning("reading training images failed, next attempt in %g s: %s", seconds, error)
            if self._closed.wait(seconds):
                break
        self._source.read(indices, out=out)

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._closed.is_set():
            raise DataError("the batch loader is closed")
        item = self._ready.get()
        if isinstance(item, DataError):
            self._ready.put(item)  # so that later calls fail too
            raise item
        return item

    def close(self) -> None:
        """Stop the background thread; safe to call twice."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):  # the thread may be waiting for a free slot
            while True:
                self._ready.get_nowait()
        self._thread.join(timeout=60)
