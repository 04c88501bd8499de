"""Ways to feed training from prepared images: our store and loader, HDF5, and BigGAN-PyTorch's loader."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hamgan.data import BatchLoader, ImageSource, open_source
from hamgan.data.preparation.finishing import write_labels_and_hash
from hamgan.data.store import FORMAT, array_header, to_json

RESOLUTION = 128
BATCH = 256
CLASSES = 12
Work = Callable[[], object]


def write_store(folder: Path, images: int) -> Path:
    """A store of `images` crops of the embedded photographs at 128 px; every thousand repeats."""
    crops = open_source("photos", "train", RESOLUTION)
    block = crops.read(np.linspace(0, len(crops) - 1, min(images, 1000)).astype(np.int64))
    (folder / "train").mkdir(parents=True)
    with (folder / "train/images.npy").open("wb") as file:
        file.write(array_header(images, RESOLUTION))
        for first in range(0, images, len(block)):
            file.write(block[: images - first].data)
    entry = write_labels_and_hash(folder, "train", np.arange(images) % CLASSES, CLASSES, RESOLUTION)
    manifest = {
        "format": FORMAT,
        "source": "photos",
        "preparation": {"resolution": RESOLUTION},
        "class_names": [str(label) for label in range(CLASSES)],
        "splits": {"train": entry},
    }
    (folder / "manifest.json").write_bytes(to_json(manifest))
    return folder


def gathering(source: ImageSource, images: int) -> Work:
    """`images` images in batches by random index, into one buffer."""
    buffer = np.empty((BATCH, RESOLUTION, RESOLUTION, 3), np.uint8)
    random = np.random.default_rng(0)

    def work() -> None:
        for _ in range(images // BATCH):
            source.read(random.integers(0, len(source), BATCH), out=buffer)

    return work


def loading(source: ImageSource, images: int, seed: int = 0) -> Work:
    """A new `BatchLoader` with its thread, order and buffers, and `images` images out of it."""
    seeds = count(seed)

    def work() -> None:
        loader = BatchLoader(source, seed=next(seeds), start=0, batch_size=BATCH)
        for _ in range(images // BATCH):
            next(loader)
        loader.close()

    return work


class Unannounced:
    """A store that is not told which images come next."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name == "expect":
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)


def evict(store: Path) -> None:
    """Take a store's images out of the system's cache, as if it had just been mounted (Linux)."""
    with (store / "train/images.npy").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def hdf5_loaders(store: Path, path: Path, images: int) -> dict[str, Work]:
    """The same images in an HDF5 file, by h5py where it is installed: the bare reads, and BigGAN-PyTorch's loader.

    That one has chunks of 500 images, opens the file for every image, makes it float32 in -1 to 1 and lets a
    DataLoader stack the batch; here without worker processes, so that CPU time counts all of it.
    """
    if not find_spec("h5py"):
        return {}
    import h5py  # type: ignore[import-not-found]  # optional

    pixels = np.load(store / "train/images.npy", mmap_mode="r")
    shape = (len(pixels), 3, RESOLUTION, RESOLUTION)
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("imgs", shape, np.uint8, chunks=(min(500, len(pixels)), *shape[1:]))
        for first in range(0, len(pixels), 500):
            rows[first : first + 500] = pixels[first : first + 500].transpose(0, 3, 1, 2)
        file["labels"] = np.load(store / "train/labels.npy")
    opened = h5py.File(path, "r")["imgs"]
    buffer = np.empty((BATCH, *shape[1:]), np.uint8)
    random = np.random.default_rng(0)

    def bare() -> None:
        for _ in range(images // BATCH):
            for row, index in enumerate(random.integers(0, len(pixels), BATCH).tolist()):
                opened.read_direct(buffer, np.s_[index], np.s_[row])

    def biggan() -> None:
        order = random.integers(0, len(pixels), images // 8).tolist()
        for _ in DataLoader(_BigganImages(path), BATCH, sampler=order):
            pass

    return {"h5py": bare, "BigGAN-PyTorch's way": biggan}


class _BigganImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import h5py

        with h5py.File(self._path, "r") as file:
            image, label = file["imgs"][index], int(file["labels"][index])
        return (torch.from_numpy(image).float() / 255 - 0.5) * 2, label
