"""Test the order of training images and the thread that gathers them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hamgan.data import BatchLoader, image_order, open_source
from hamgan.data.source import Description
from hamgan.errors import ConfigError, DataError


class CountingSource:
    """Fill image i with i mod 256, so that a test sees which images arrive."""

    name, split, resolution = "counting", "train", 4

    def __init__(self, length: int, fail_at: int | None = None) -> None:
        self.labels = np.arange(length, dtype=np.int64)
        self.class_names = [str(i) for i in range(length)]
        self.fail_at = fail_at

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if self.fail_at in indices.tolist():
            raise OSError(f"disk gone at image {self.fail_at}")
        out = np.empty((len(indices), 4, 4, 3), np.uint8) if out is None else out
        out[:] = (indices % 256)[:, None, None, None]
        return out

    def describe(self) -> Description:
        return {}


def take(loader: BatchLoader, batches: int) -> np.ndarray:
    try:
        return np.concatenate([next(loader)[1].numpy().copy() for _ in range(batches)])
    finally:
        loader.close()


@given(st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 200), st.integers(0, 150))
@settings(max_examples=50, deadline=None)
def test_order_is_an_exact_shuffle_of_every_epoch(length: int, seed: int, start: int, count: int) -> None:
    whole = image_order(length, seed, 0, 7 * length)
    assert all(sorted(epoch) == list(range(length)) for epoch in whole.reshape(7, length).tolist())
    stop = min(start + count, 7 * length)
    if start < stop:
        assert np.array_equal(image_order(length, seed, start, stop - start), whole[start:stop])


def test_epochs_and_seeds_differ() -> None:
    assert not np.array_equal(image_order(50, 0, 0, 50), image_order(50, 0, 50, 50))
    assert not np.array_equal(image_order(50, 0, 0, 50), image_order(50, 1, 0, 50))
    assert not np.array_equal(image_order(50, 0, 0, 50), image_order(50, 1 << 32, 0, 50))


def test_order_is_the_same_for_good() -> None:
    # A run resumed years later must see the same images; this is the recorded order.
    assert image_order(10, 3, 8, 6).tolist() == RECORDED


RECORDED = [0, 6, 8, 1, 3, 5]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_see_the_order_once(world_size: int) -> None:
    source = CountingSource(23)
    shares = [
        take(BatchLoader(source, seed=5, start=40, batch_size=8, rank=rank, world_size=world_size), 6)
        for rank in range(world_size)
    ]
    seen = np.stack([share.reshape(6, -1) for share in shares], 1).reshape(-1)
    assert np.array_equal(seen, image_order(23, 5, 40, 48))


def test_resuming_needs_no_replay() -> None:
    source = CountingSource(23)
    whole = take(BatchLoader(source, seed=1, start=0, batch_size=5), 12)
    assert np.array_equal(take(BatchLoader(source, seed=1, start=35, batch_size=5), 5), whole[35:])


def test_images_fit_labels_and_stay_valid() -> None:
    source = CountingSource(200)
    loader = BatchLoader(source, seed=0, start=0, batch_size=20, prefetch=1)
    previous = None
    for _ in range(60):
        images, labels = next(loader)
        for held in (previous, (images, labels)):
            if held is not None:
                assert torch.equal(held[0][:, 0, 0, 0].long(), held[1])
        if previous is not None:
            assert previous[0].data_ptr() != images.data_ptr()
        previous = (images, labels)
    loader.close()


def test_real_images_arrive_as_read() -> None:
    source = open_source("photos", "train", 32)
    loader = BatchLoader(source, seed=2, start=10, batch_size=6, rank=1, world_size=2)
    images, labels = next(loader)
    indices = image_order(len(source), 2, 13, 3)
    assert np.array_equal(images.numpy(), source.read(indices))
    assert np.array_equal(labels.numpy(), source.labels[indices])
    loader.close()


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamgan.data.loader.RETRY_SECONDS", (0.0, 0.0))


class FlakySource(CountingSource):
    """Fail twice in a row at every other batch."""

    attempts = 0

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        self.attempts += 1
        if self.attempts % 4 in (2, 3):
            raise OSError("Stale file handle")
        return super().read(indices, out)


@pytest.mark.usefixtures("_no_waiting")
def test_what_fails_for_a_moment_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    seen = take(BatchLoader(FlakySource(23), seed=1, start=0, batch_size=5), 12)
    assert np.array_equal(seen, image_order(23, 1, 0, 60))
    assert "failed, next attempt in 0 s: Stale file handle" in caplog.text


@pytest.mark.usefixtures("_no_waiting")
def test_an_error_while_reading_surfaces_in_next_again_and_again() -> None:
    loader = BatchLoader(CountingSource(12, fail_at=7), seed=0, start=0, batch_size=4)
    for _ in range(2):
        with pytest.raises(DataError, match=r"reading training images at position \d+ failed: disk gone at image 7"):
            list(itertools.islice(loader, 4))
    loader.close()


def test_close_ends_the_thread_and_next_says_so() -> None:
    loader = BatchLoader(CountingSource(12), seed=0, start=0, batch_size=4)
    next(loader)
    loader.close()
    loader.close()
    assert not loader._thread.is_alive()
    with pytest.raises(DataError, match="closed"):
        next(loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((5, 0), "batch size 5 does not divide among 2 processes"),
        ((4, 2), "rank 2 is outside 0 to 1"),
    ],
)
def test_wrong_shares_get_a_sentence(options: tuple[int, int], message: str) -> None:
    batch_size, rank = options
    with pytest.raises(ConfigError, match=message):
        BatchLoader(CountingSource(12), seed=0, start=0, batch_size=batch_size, rank=rank, world_size=2)
