"""The order of training images, a function of the seed and the images seen, and the thread that gathers batches."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hamgan.data.source import ImageSource, ReadsAhead
from hamgan.errors import ConfigError, DataError, one_line

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 4.0, 15.0)
"""Waits between attempts to read a batch: file servers are gone for moments."""
READ_AHEAD = 4
"""Batches beyond the one being gathered that a source is told of: a disk answers many requests at once."""


@lru_cache(maxsize=2)
def _epoch_order(length: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    # RandomState's stream is frozen for good (NEP 19), Generator's is not: a run resumed under another NumPy must see
    # the same order.
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, epoch] + ([stream] if stream else [])
    order = np.random.RandomState(key).permutation(length)
    order.setflags(write=False)
    return order


def image_order(source_length: int, seed: int, start: int, count: int, stream: int = 0) -> np.ndarray:
    """Indices int64 [count] at positions start .. start + count of the endless training stream.

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


@dataclass
class _Buffer:
    images: Tensor
    labels: Tensor
    copied: torch.cuda.Event | None = None
    """Set when a device copy out of the pinned memory may still be under way."""


class BatchLoader(Iterator[tuple[Tensor, Tensor]]):
    """Endless batches of this rank: images uint8 [b, H, W, 3] and labels int64 [b], with b = batch_size / world_size.

    Batch k of all ranks together is positions ``start + k * batch_size`` and following of `image_order`; a rank gets a
    contiguous slice. A background thread gathers ahead into a fixed ring of buffers.

    A yielded batch stays valid until the second ``next()`` after the one that returned it is called: hold at most two
    batches, copy what must live longer. With `pin`, a non-blocking device copy on the current stream that was issued
    before then is waited for as well, so it always reads the right pixels.
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
        self._source, self._seed, self._start, self._stream = source, seed, start, stream
        self._batch_size, self._share, self._rank = batch_size, batch_size // world_size, rank
        self._labels = torch.from_numpy(np.ascontiguousarray(source.labels))
        self._free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Buffer | DataError] = queue.SimpleQueue()
        self._held: list[_Buffer] = []
        self._closed = threading.Event()
        self._pin = pin
        # Two are with the caller, one is being filled, the others wait.
        for _ in range(max(1, prefetch) + 3):
            self._free.put(self._new_buffer())
        self._thread = threading.Thread(target=self._fill, name="batch-loader", daemon=True)
        self._thread.start()

    def _new_buffer(self) -> _Buffer:
        size = self._source.resolution
        return _Buffer(
            torch.empty((self._share, size, size, 3), dtype=torch.uint8, pin_memory=self._pin),
            torch.empty(self._share, dtype=torch.int64, pin_memory=self._pin),
        )

    def _fill(self) -> None:
        position = self._start + self._rank * self._share
        upcoming: deque[np.ndarray] = deque()
        while True:
            buffer = self._free.get()
            if self._closed.is_set():
                return
            try:
                if buffer.copied is not None:
                    buffer.copied.synchronize()
                while len(upcoming) <= READ_AHEAD:
                    ahead = position + len(upcoming) * self._batch_size
                    upcoming.append(image_order(len(self._source), self._seed, ahead, self._share, self._stream))
                    if isinstance(self._source, ReadsAhead):
                        self._source.expect(upcoming[-1])
                indices = upcoming.popleft()
                self._read(indices, buffer.images.numpy())
                torch.index_select(self._labels, 0, torch.from_numpy(indices), out=buffer.labels)
            except BaseException as error:  # whatever ends this thread, the training must not wait for it
                reason = one_line(error)
                failure = DataError(f"reading training images at position {position} failed: {reason}")
                failure.__cause__ = error
                self._ready.put(failure)
                return
            self._ready.put(buffer)
            position += self._batch_size

    def _read(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Have the source read, several times where it fails."""
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
        if len(self._held) == 2:
            self._release(self._held.pop(0))
        item = self._ready.get()
        if isinstance(item, DataError):
            self._ready.put(item)
            raise item
        self._held.append(item)
        return item.images, item.labels

    def _release(self, buffer: _Buffer) -> None:
        if self._pin:
            buffer.copied = torch.cuda.Event()
            buffer.copied.record()
        self._free.put(buffer)

    def close(self) -> None:
        """Stop the background thread; safe to call twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._free.put(self._held.pop() if self._held else self._new_buffer())
            self._thread.join(timeout=60)
