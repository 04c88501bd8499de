"""Measure the input of training: feeding batches from a store, and preparing JPEGs, beside the usual ways."""

import argparse
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.report import Report, Table
from benchmarks.timing import Timings, Work, time_in_turn
from hamgan.data import BatchLoader, ImageSource, open_source
from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.photos import photo_folder
from hamgan.data.preparation.finishing import write_labels_and_hash
from hamgan.data.store import FORMAT, array_header, to_json
from hamgan.errors import ConfigError

Decoder = Callable[[bytes], np.ndarray]

RESOLUTION, BATCH, CLASSES = 128, 256, 12
PER_ROUND = 32 * BATCH
WIDTH, HEIGHT = 500, 375
"""Size of the median picture of ImageNet, in pixels."""
WHOLE, BIGGAN = "BatchLoader, whole", "BigGAN-PyTorch's way"
PLAIN = {"lanczos": "PIL + torchvision, Lanczos", "bilinear": "PIL + torchvision, bilinear"}
OURS = {"lanczos": "hamgan, Lanczos", "bilinear": "hamgan, bilinear"}


def run(options: argparse.Namespace) -> Report:
    """Measure loader and preparation, each in turn with its alternatives, in CPU time of one thread."""
    if options.images < 1000:
        raise ConfigError(f"--images is {options.images}; the loader needs 1,000 or more")
    if options.folder and not options.folder.is_dir():
        raise ConfigError(f"--folder {options.folder} is not a folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, open(os.devnull, "w") as nowhere:
        folder = Path(temporary)
        needed = int(1.3 * options.images * RESOLUTION**2 * 3)
        if needed > shutil.disk_usage(folder).free:
            raise ConfigError(f"{folder} has no room for {needed / 1e9:.1f} GB; name another disk with --folder")
        with redirect_stderr(nowhere):  # progress bars
            feeding = _measure_feeding(folder, _sizes(options.images), options.rounds)
    jpegs = sample_jpegs(options.jpegs)
    preparing, differences = _measure_preparing(jpegs, options.rounds)
    return Report(
        "Data",
        f"{RESOLUTION} px, batches of {BATCH}; in turn, medians of {options.rounds} rounds in CPU time of the process "
        f"with all its threads; {options.jpegs} JPEGs of 500 x 375, quality 95, from crops of photographs.",
        [_feeding_table(feeding), _preparing_table(preparing, differences, len(jpegs))],
        _verdict(feeding, preparing, differences, options.images),
        {
            "loader": feeding.to_json(),
            "images_per_round": PER_ROUND,
            "decoding": preparing.to_json(),
            "grey_levels_apart": differences,
        },
    )


def _sizes(images: int) -> list[int]:
    return [images // 100, images // 10, images]


def _measure_feeding(folder: Path, sizes: list[int], rounds: int) -> Timings:
    works: dict[str, Work] = {}
    for size in sizes:
        source = open_source(str(write_store(folder / str(size), size)), "train", RESOLUTION)
        works[f"{WHOLE}, {size:,} images"] = make_loading(source, PER_ROUND)
    if find_spec("h5py"):
        works |= make_hdf5_loading(folder / str(sizes[1]), folder / "images.hdf5", PER_ROUND)
    return time_in_turn(works, rounds, clock="cpu")


def write_store(folder: Path, images: int) -> Path:
    """Write a store of ``images`` crops of the embedded photographs at 128 px; they repeat after a thousand."""
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


def make_loading(source: ImageSource, images: int) -> Work:
    """Make work that starts a `BatchLoader` with its thread, order and buffers, and takes images out of it."""
    seeds = count()

    def work() -> None:
        loader = BatchLoader(source, seed=next(seeds), start=0, batch_size=BATCH)
        for _ in range(images // BATCH):
            next(loader)
        loader.close()

    return work


def make_hdf5_loading(store: Path, path: Path, images: int) -> dict[str, Work]:
    """Copy the images of a store into an HDF5 file; make work of h5py's bare reads and of BigGAN-PyTorch's loader.

    That one has chunks of 500 images, opens the file for every image, makes it float32 in -1 to 1 and lets a
    DataLoader stack the batch; here without worker processes, so that CPU time counts all of it.
    """
    import h5py

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

    def read_bare() -> None:
        for _ in range(images // BATCH):
            for row, index in enumerate(random.integers(0, len(pixels), BATCH).tolist()):
                opened.read_direct(buffer, np.s_[index], np.s_[row])

    def load_as_biggan() -> None:
        order = random.integers(0, len(pixels), images // 8).tolist()
        for _ in DataLoader(_BigganImages(path), BATCH, sampler=order):
            pass

    return {"h5py": read_bare, BIGGAN: load_as_biggan}


class _BigganImages(Dataset[tuple[Tensor, int]]):
    """Read images of an HDF5 file as BigGAN-PyTorch does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import h5py

        with h5py.File(self._path, "r") as file:
            image, label = file["imgs"][index], int(file["labels"][index])
        return (torch.from_numpy(image).float() / 255 - 0.5) * 2, label


def sample_jpegs(number: int) -> list[bytes]:
    """Crop the embedded colour photographs into JPEGs as ImageNet has them: 500 x 375 pixels, quality 95."""
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "retina.jpg", "hubble_deep_field.jpg")
    random = np.random.default_rng(0)
    encoded = []
    for index in range(number):
        image = Image.open(photo_folder() / names[index % len(names)]).convert("RGB")
        scale = min(image.width / WIDTH, image.height / HEIGHT) * random.uniform(0.75, 1)
        width, height = int(WIDTH * scale), int(HEIGHT * scale)
        left, top = (int(random.integers(0, rest + 1)) for rest in (image.width - width, image.height - height))
        crop = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=95)
        encoded.append(file.getvalue())
    return encoded


def make_decoders(resolution: int) -> dict[str, Decoder]:
    """Make every way from a JPEG to a training image, by name: the obvious pipeline and ours, with both filters."""

    def make_plain(interpolation: v2.InterpolationMode) -> Decoder:
        steps = v2.Compose([v2.CenterCrop(HEIGHT), v2.Resize(resolution, interpolation, antialias=True)])
        return lambda data: np.asarray(steps(Image.open(io.BytesIO(data)).convert("RGB")))

    return {
        PLAIN["lanczos"]: make_plain(v2.InterpolationMode.LANCZOS),
        PLAIN["bilinear"]: make_plain(v2.InterpolationMode.BILINEAR),
        OURS["lanczos"]: partial(decode, preparation=Preparation(resolution)),
        OURS["bilinear"]: partial(decode, preparation=Preparation(resolution, filter="bilinear")),
    }


def mean_difference(decoder: Decoder, reference: Decoder, jpegs: list[bytes]) -> float:
    """Return the mean absolute difference of two decoders' images, in grey levels of 0 to 255."""
    pairs = ((decoder(data).astype(float), reference(data).astype(float)) for data in jpegs)
    return float(np.mean([np.abs(one - other).mean() for one, other in pairs]))


def _base(name: str) -> str:
    """Return the plain pipeline with the filter of a decoder."""
    return PLAIN["bilinear" if "bilinear" in name else "lanczos"]


def _measure_preparing(jpegs: list[bytes], rounds: int) -> tuple[Timings, dict[str, float]]:
    """Measure all decoders, and their grey levels from the plain pipeline with the same filter."""
    decoders = make_decoders(RESOLUTION)

    def make_work(decoder: Decoder) -> Work:
        return lambda: [decoder(data) for data in jpegs]

    timings = time_in_turn({name: make_work(decoder) for name, decoder in decoders.items()}, rounds, clock="cpu")
    return timings, {name: mean_difference(decoder, decoders[_base(name)], jpegs) for name, decoder in decoders.items()}


def _feeding_table(feeding: Timings) -> Table:
    rows: list[Sequence[object]] = []
    for name in feeding.seconds:
        images = PER_ROUND // 8 if name == BIGGAN else PER_ROUND
        rows.append([name, images / feeding.median(name), feeding.spread(name)])
    return Table(["a warm store", "images per CPU second", "spread"], rows, "Feeding")


def _preparing_table(preparing: Timings, differences: dict[str, float], jpegs: int) -> Table:
    rows = [
        [name, jpegs / preparing.median(name), preparing.ratio(_base(name), name), f"{differences[name]:.3f}"]
        for name in preparing.seconds
    ]
    headers = ["JPEG to image", "images per CPU second", "times PIL + torchvision", "grey levels from it"]
    return Table(headers, rows, "Preparing")


def _verdict(feeding: Timings, preparing: Timings, differences: dict[str, float], images: int) -> list[str]:
    small, _, large = (f"{WHOLE}, {size:,} images" for size in _sizes(images))
    return [
        f"The loader delivers {PER_ROUND / feeding.median(large):,.0f} images per CPU second from {images:,} images.",
        f"An image from {images:,} costs {feeding.ratio(large, small):.2f} times one from {images // 100:,}.",
        *(
            f"{name}: {preparing.ratio(_base(name), name):.2f} times the images/s of PIL + torchvision, "
            f"{differences[name]:.3f} grey levels apart."
            for name in OURS.values()
        ),
    ]
