"""Pictures on disk: a sheet, a folder, an .npz or a film; written whole or not at all, by any number of processes."""

import shutil
import sys
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.sampling.animation import check_film, write_film
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sampling.plan import Plan, draw, plan_samples
from hamgan.sampling.png import encode_png
from hamgan.sampling.sheets import check_output, draw_grid, draw_sheet, sheet_size

FILMS = (".gif", ".mp4")
LARGEST_SHEET = 178_000_000
"""Pixels: what Pillow opens without a warning."""
BATCH_SIZE = 64
"""Images that are drawn together: on a CPU they are shared out among the cores."""
ENCODERS = 4
"""Threads that encode and write PNGs."""


def sample_to(
    generator: LoadedGenerator,
    classes: Sequence[int],
    seeds: Sequence[int],
    truncation: float,
    out: Path,
    scale: int = 1,
) -> None:
    """Draw every class with every seed and write a sheet (``*.png``, a row per class), an ``.npz`` or a folder."""
    write_plan(generator, plan_samples(classes, seeds, [truncation], generator.titles), out, scale=scale)


def check_request(
    plan: Plan, out: Path, resolution: int, *, scale: int = 1, fps: int = 20, sheets: bool = False
) -> None:
    """Raise ConfigError for whatever would fail after the images are drawn."""
    check_output(out)
    if scale < 1:
        raise ConfigError(f"scale is {scale}; it must be 1 or more")
    if not plan.pictures:
        raise ConfigError("there is nothing to draw: no class or no seed")
    kind = out.suffix.lower()
    if kind in FILMS:
        check_film(out, fps)
    if sheets and kind:
        raise ConfigError(f"{out}: a sheet per class needs a folder, a name without {kind}")
    if kind == ".png":
        width, height = sheet_size(
            len(plan.rows), plan.titles, resolution * scale, plan.groups or [("", len(plan.rows[0]))]
        )
        if width * height > LARGEST_SHEET:
            raise ConfigError(f"{out} would have {width:,} x {height:,} pixels, more than viewers open; write a folder")


def write_plan(
    generator: LoadedGenerator,
    plan: Plan,
    out: Path,
    *,
    scale: int = 1,
    fps: int = 20,
    sheets: bool = False,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Draw a plan and write it as the suffix of ``out`` says; ``sheets``: a labelled sheet per row into a folder.

    Every process of torch.distributed draws its share; the first one puts them together. Nothing appears under the name
    ``out`` before it is complete. Raises ConfigError for what cannot be written.
    """
    check_request(plan, out, generator.config.resolution, scale=scale, fps=fps, sheets=sheets)
    with _workplace(out) as work:
        if not out.suffix and not sheets:
            _write_folder(generator, plan, work / "folder", batch_size)
            finished = work / "folder"
        else:
            images = _draw_all(generator, plan, work / "images.npy", batch_size)
            finished = work / f"finished{out.suffix.lower()}"
            if Processes.current().is_main:
                _put_together(images, plan, finished, scale, fps, sheets)
        if Processes.current().is_main:
            finished.replace(out)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that all processes share and that is gone afterwards."""
    work, main = out.parent / f".{out.name}.tmp", Processes.current().is_main
    if main:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    try:
        _barrier()
        yield work
    finally:
        if main:
            shutil.rmtree(work, ignore_errors=True)


def _barrier() -> None:
    if Processes.current().size > 1:
        dist.barrier()


def _batches(generator: LoadedGenerator, plan: Plan, batch_size: int, take: Callable[[int, np.ndarray], None]) -> None:
    """Draw this process's share; ``take`` gets the index of the first picture and uint8 [b, H, W, 3]."""
    processes, pictures = Processes.current(), plan.pictures
    share = processes.share(len(pictures))
    quiet = not processes.is_main or not sys.stderr.isatty()
    with tqdm(total=len(pictures), unit="image", disable=quiet) as bar:
        for start, images in draw(generator, pictures[share.start : share.stop], batch_size):
            take(share.start + start, images.permute(0, 2, 3, 1).contiguous().numpy())
            bar.update(min(len(images) * processes.size, len(pictures) - bar.n))


def _draw_all(generator: LoadedGenerator, plan: Plan, file: Path, batch_size: int) -> np.ndarray:
    """All images [N, H, W, 3], a memory-mapped file that the processes fill together."""
    size = generator.config.resolution
    shape = (len(plan.pictures), size, size, 3)
    if Processes.current().is_main:
        np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()
    _barrier()
    images = np.lib.format.open_memmap(file, mode="r+")

    def take(start: int, batch: np.ndarray) -> None:
        images[start : start + len(batch)] = batch

    _batches(generator, plan, batch_size, take)
    images.flush()
    _barrier()
    return images


def _write_folder(generator: LoadedGenerator, plan: Plan, folder: Path, batch_size: int) -> None:
    """A PNG per picture; encoding runs beside the drawing of the next batch."""
    names = [name for row in plan.names for name in row]
    waiting: deque[Future[None]] = deque()
    folder.mkdir(exist_ok=True)

    def take(start: int, batch: np.ndarray) -> None:
        # At most two batches wait: a slow disk holds the drawing up, not the memory.
        while len(waiting) > 2 * batch_size:
            waiting.popleft().result()
        for index, image in enumerate(batch, start=start):
            waiting.append(encoders.submit(_save, image, folder / f"{names[index]}.png"))

    with ThreadPoolExecutor(ENCODERS) as encoders:
        _batches(generator, plan, batch_size, take)
        for saved in waiting:
            saved.result()
    _barrier()


def _save(image: np.ndarray, path: Path) -> None:
    path.write_bytes(encode_png(image))


def _put_together(images: np.ndarray, plan: Plan, path: Path, scale: int, fps: int, sheets: bool) -> None:
    if path.suffix == ".npz":
        _write_npz(path, plan)
        return
    by_row = images.reshape(len(plan.rows), -1, *images.shape[1:])
    if path.suffix in FILMS:
        write_film(by_row, path, fps, scale)
        return
    rows = [torch.from_numpy(np.ascontiguousarray(row)).permute(0, 3, 1, 2) for row in by_row]
    if not sheets:
        draw_sheet(rows, plan.titles, groups=plan.groups, scale=scale).save(path)
        return
    path.mkdir()
    for row, title, pictures in zip(rows, plan.titles, plan.rows, strict=True):
        words = "".join(letter if letter.isalnum() else "_" for letter in title)[:60]
        draw_grid(row, title, scale=scale).save(path / f"{pictures[0].label:04d}-{words}.png")


def _write_npz(path: Path, plan: Plan) -> None:
    """ADM's layout: arr_0 uint8 [N, H, W, 3], arr_1 classes [N]. The images are on disk already: they are copied in."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.write(path.with_name("images.npy"), "arr_0.npy")
        if plan.labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, np.array(plan.labels, np.int64))
