"""The input of training: feeding batches from a store, and preparing JPEGs, beside the usual ways.

The loader is measured on stores of a hundredth, a tenth and all of --images images, warm and (Linux) cold. Preparation
is measured on JPEGs as ImageNet has them, against PIL + torchvision. h5py, simplejpeg and OpenCV take part where they
are installed: pip install h5py simplejpeg opencv-python-headless
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.decoders import OURS, PLAIN, Decoder, decoders, grey_levels_apart, sample_jpegs
from benchmarks.loaders import BATCH, RESOLUTION, Unannounced, evict, gathering, hdf5_loaders, loading, write_store
from benchmarks.report import Report, Table
from benchmarks.timing import Timings, interleaved
from hamgan.data import ImageSource, open_source
from hamgan.data.decoding.decode import Preparation
from hamgan.data.finding.listing import list_pictures
from hamgan.data.preparation.units import cut_units, write_unit
from hamgan.data.store import HEADER_BYTES
from hamgan.errors import ConfigError

PER_ROUND = 32 * BATCH
COLD_IMAGES = 8 * BATCH
TARGET_RATE, TARGET_PREPARATION = 40_000, 1.4
WHOLE, GATHER = "BatchLoader, whole", "its gather alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m benchmarks data``."""
    parser.add_argument("--images", type=int, default=100_000, help="images of the largest store (default: 100,000)")
    parser.add_argument("--folder", type=Path, help="disk for the stores (default: the system's temporary folder)")
    parser.add_argument("--jpegs", type=int, default=48, help="JPEGs to prepare per round (default: 48)")


def run(options: argparse.Namespace) -> Report:
    """Loader and preparation, each in turn with its alternatives, in CPU time of one thread."""
    if options.images < 1000:
        raise ConfigError(f"--images is {options.images}; the loader needs 1,000 or more")
    if options.folder and not options.folder.is_dir():
        raise ConfigError(f"--folder {options.folder} is not a folder")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary, open(os.devnull, "w") as nowhere:
        folder = Path(temporary)
        _check_space(folder, options.images)
        with redirect_stderr(nowhere):  # progress bars
            loader = _loader(folder, _sizes(options.images), options.rounds)
            cold = _cold(folder / str(options.images), min(options.rounds, 5))
            jpegs = sample_jpegs(options.jpegs)
            decoding, apart = _decoding(jpegs, options.rounds)
            preparing = _preparing(folder, jpegs, options.rounds)
    return Report(
        "Data",
        f"{RESOLUTION} px, batches of {BATCH}; in turn, medians of {options.rounds} rounds in CPU time of the process "
        f"with all its threads; {options.jpegs} JPEGs of 500 x 375, quality 95, from crops of photographs.",
        [_loader_table(loader), *([_cold_table(cold)] if cold else []), _decoding_table(decoding, apart, len(jpegs))],
        _verdict(loader, decoding, apart, preparing, options.images),
        {
            "loader": loader.to_json(),
            "images_per_round": PER_ROUND,
            "cold_images_per_s": cold,
            "decoding": decoding.to_json(),
            "grey_levels_apart": apart,
            "preparing": preparing.to_json(),
        },
    )


def _sizes(images: int) -> list[int]:
    return [images // 100, images // 10, images]


def _check_space(folder: Path, images: int) -> None:
    needed = int(1.3 * images * RESOLUTION**2 * 3)
    if needed > shutil.disk_usage(folder).free:
        raise ConfigError(f"{folder} has no room for {needed / 1e9:.1f} GB; name another disk with --folder")


def _loader(folder: Path, sizes: list[int], rounds: int) -> Timings:
    alternatives: dict[str, Callable[[], object]] = {}
    for size in sizes:
        store = write_store(folder / str(size), size)
        source = open_source(str(store), "train", RESOLUTION)
        alternatives |= {
            f"{WHOLE}, {size:,} images": loading(source, PER_ROUND),
            f"{GATHER}, {size:,} images": gathering(source, PER_ROUND),
        }
    alternatives |= hdf5_loaders(folder / str(sizes[1]), folder / "images.hdf5", PER_ROUND)
    return interleaved(alternatives, rounds, clock="cpu")


def _cold(store: Path, rounds: int) -> dict[str, float]:
    """Images/s of wall time from a disk whose cache is empty, with the next batches announced and without."""
    if not hasattr(os, "posix_fadvise"):
        return {}
    if len(open_source(str(store), "train", RESOLUTION)) < 20 * COLD_IMAGES:  # readers would meet each other's pages
        return {}
    forms: dict[str, Callable[[ImageSource], ImageSource]] = {
        "announced to the disk": lambda source: source,
        "not announced": Unannounced,
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for seed in range(rounds):
        for number, (name, form) in enumerate(forms.items()):
            evict(store)  # what a process has mapped stays, so every reader opens the store anew and reads other images
            work = loading(form(open_source(str(store), "train", RESOLUTION)), COLD_IMAGES, 1000 * seed + number)
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
            del work
    return {name: COLD_IMAGES / median(values) for name, values in seconds.items()}


def _decoding(jpegs: list[bytes], rounds: int) -> tuple[Timings, dict[str, float]]:
    found = decoders(RESOLUTION)

    def work(decoder: Decoder) -> Callable[[], object]:
        return lambda: [decoder(data) for data in jpegs]

    timings = interleaved({name: work(decoder) for name, (decoder, _) in found.items()}, rounds, clock="cpu")
    references = {filter: found[name][0] for filter, name in PLAIN.items()}
    apart = {name: grey_levels_apart(decoder, references[filter], jpegs) for name, (decoder, filter) in found.items()}
    return timings, apart


def _preparing(folder: Path, jpegs: list[bytes], rounds: int) -> Timings:
    """All that a worker does for its pictures, beside the plain pipeline that reads files and fills an array."""
    for number, data in enumerate(jpegs):
        path = folder / "jpegs" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    store = folder / "prepared"
    for name in ("train", "work"):
        (store / name).mkdir(parents=True)
    (store / "train/images.npy").write_bytes(bytes(HEADER_BYTES))
    how = Preparation(RESOLUTION)
    pictures = list_pictures(str(folder / "jpegs"), folder / "unpacked").pictures["train"]
    plain = decoders(RESOLUTION)[PLAIN["lanczos"]][0]

    def ours() -> None:
        for unit in cut_units("train", pictures, how):
            write_unit(store, unit, how, strict=True)

    def usual() -> None:
        images = [plain(path.read_bytes()) for path in sorted((folder / "jpegs").rglob("*.jpg"))]
        np.save(folder / "plain.npy", np.stack(images))

    return interleaved({"usual": usual, "ours": ours}, rounds, clock="cpu")


def _loader_table(loader: Timings) -> Table:
    rows: list[Sequence[object]] = []
    for name in loader.seconds:
        images = PER_ROUND // 8 if name.startswith("BigGAN") else PER_ROUND
        rows.append([name, images / loader.median(name), loader.spread(name)])
    return Table(["a warm store", "images per CPU second", "spread"], rows, "Feeding")


def _cold_table(cold: dict[str, float]) -> Table:
    return Table(["the next batches are", "images/s"], list(cold.items()), "Feeding from a cold disk, wall time")


def _decoding_table(decoding: Timings, apart: dict[str, float], count: int) -> Table:
    rows: list[Sequence[object]] = []
    for name in decoding.seconds:
        base = PLAIN["bilinear" if "bilinear" in name else "lanczos"]
        rows.append([name, count / decoding.median(name), decoding.ratio(base, name), f"{apart[name]:.3f}"])
    headers = ["JPEG to image", "images per CPU second", "times PIL + torchvision", "grey levels from it"]
    return Table(headers, rows, "Preparing")


def _verdict(loader: Timings, decoding: Timings, apart: dict[str, float], preparing: Timings, images: int) -> list[str]:
    small, _, large = (f"{WHOLE}, {size:,} images" for size in _sizes(images))
    rate = PER_ROUND / loader.median(large)
    sentences = [
        f"The loader delivers {rate:,.0f} images per CPU second from {images:,} images; the target of "
        f"{TARGET_RATE:,} is {'met' if rate >= TARGET_RATE else 'missed'}.",
        f"An image from {images:,} costs {loader.ratio(large, small):.2f} times one from {images // 100:,}.",
    ]
    for filter, name in OURS.items():
        ratio = decoding.ratio(PLAIN[filter], name)
        met = "met" if ratio >= TARGET_PREPARATION and apart[name] <= 1 else "missed"
        sentences.append(
            f"{name}: {ratio:.2f} times the images/s of PIL + torchvision, {apart[name]:.3f} grey levels apart; the "
            f"target of {TARGET_PREPARATION} within 1 is {met}."
        )
    ratio = preparing.ratio("usual", "ours")
    return [*sentences, f"With reading, writing, fsync and the marker of the unit: {ratio:.2f} times."]
