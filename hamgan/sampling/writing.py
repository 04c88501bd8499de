"""Write a plan's images as a sheet, a folder, an .npz or an animation, atomically, with any number of processes."""

import math
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.progress import ProgressBar
from hamgan.sampling.animation import check_film, tiles_across, write_film
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sampling.outputs import check_output
from hamgan.sampling.plan import Plan, draw
from hamgan.sampling.sheets import draw_sheet, sheet_size, visible_scale

FILMS = (".gif", ".mp4")
LARGEST_SHEET = 178_000_000
"""Largest number of pixels of a sheet, which Pillow opens without a warning."""
LARGEST_ENLARGED = 16_000_000
"""Largest number of pixels of a sheet that is enlarged by default."""
FILM = 256
"""Least side of an animation, in pixels, after the default enlargement."""
BATCH_SIZE = 64
"""Images that are drawn together; on a CPU they are divided among the cores."""
ENCODERS = 4
"""Threads that encode and write PNGs."""


@dataclass(frozen=True)
class Output:
    """Hold the options of an output; the suffix of ``path`` decides the format, none means a folder."""

    path: Path
    scale: int | None = None
    """Integer enlargement of sheets and animations; None chooses it by image size."""
    fps: int = 20
    sheets: bool = False
    """Whether to write a labelled sheet per row into a folder."""
    force: bool = False
    """Whether to replace an existing output."""

    @property
    def kind(self) -> str:
        """Return the suffix in lower case."""
        return self.path.suffix.lower()


def check_request(plan: Plan, output: Output, resolution: int) -> None:
    """Raise ConfigError for anything that would fail after the images are drawn."""
    path = output.path
    check_output(path, output.force)
    if output.scale is not None and output.scale < 1:
        raise ConfigError(f"scale is {output.scale}; it must be 1 or more")
    if output.scale not in (None, 1) and (output.kind == ".npz" or not (output.kind or output.sheets)):
        raise ConfigError(f"scale is {output.scale}: only sheets and animations are enlarged, and {path} is neither")
    if not plan.images:
        raise ConfigError("there is nothing to draw: no class or no seed")
    if output.kind in FILMS:
        check_film(path, output.fps)
    if output.sheets and output.kind:
        raise ConfigError(f"{path}: a sheet per class needs a folder, a name without {output.kind}")
    if output.kind == ".png":
        width, height = _sheet_size(plan, resolution * enlargement(plan, output, resolution))
        if width * height > LARGEST_SHEET:
            raise ConfigError(
                f"{path} would have {width:,} x {height:,} pixels, more than viewers open: write a folder"
            )


def _sheet_size(plan: Plan, size: int) -> tuple[int, int]:
    groups = plan.groups or [("", len(plan.rows[0]))]
    return sheet_size(len(plan.rows), plan.titles, size, groups, plan.columns)


def enlargement(plan: Plan, output: Output, resolution: int) -> int:
    """Return the integer enlargement of a sheet or animation; 1 for arrays and folders of images."""
    if output.kind == ".npz" or not (output.kind or output.sheets):
        return 1
    if output.scale is not None:
        return output.scale
    if output.kind in FILMS:
        return visible_scale(tiles_across(len(plan.rows)) * resolution, FILM)
    scale = visible_scale(resolution)
    while scale > 1 and output.kind and math.prod(_sheet_size(plan, resolution * scale)) > LARGEST_ENLARGED:
        scale -= 1
    return scale


def write_plan(generator: LoadedGenerator, plan: Plan, output: Output, batch_size: int = BATCH_SIZE) -> None:
    """Draw a plan and write it.

    Every process of torch.distributed draws its share, and the first one writes the output, which appears only when it
    is complete. Raises ConfigError for an output that cannot be written.
    """
    check_request(plan, output, generator.config.resolution)
    with _temporary_folder(output.path) as folder:
        finished = folder / f"finished{output.kind}"
        if not output.kind and not output.sheets:
            _write_folder(generator, plan, finished, batch_size)
        else:
            images = _draw_all(generator, plan, folder / "images.npy", batch_size)
            if Processes.current().is_main:
                scale = enlargement(plan, output, generator.config.resolution)
                _write_file(images, plan, finished, output, scale)
        if Processes.current().is_main:
            if (
                output.path.is_dir()
            ):  # a folder cannot be replaced, so it is moved into the temporary one, which is deleted
                output.path.replace(folder / "replaced")
            finished.replace(output.path)


def describe_written(plan: Plan, output: Output, resolution: int) -> str:
    """Describe a written output: path of an animation, its tiles, the enlargement."""
    scale, count = enlargement(plan, output, resolution), len(plan.images)
    text = f"wrote {count} image{'s' * (count > 1)} to {output.path}"
    if plan.way:
        text += f": {plan.way}"
    if output.kind in FILMS:
        across = tiles_across(len(plan.rows))
        tiles = f"; {across} tiles a line: " if across > 1 else ", "
        text += tiles + ", ".join(plan.titles)
    return text + (f" (enlarged {scale} times; --scale 1: raw pixels)" if scale > 1 and output.scale is None else "")


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder next to ``path``, shared by all processes."""
    folder, main = path.parent / f".{path.name}.tmp", Processes.current().is_main
    if main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        _wait_for_all()
        yield folder
    finally:
        if main:
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for_all() -> None:
    if Processes.current().size > 1:
        dist.barrier()


def _draw_share(generator: LoadedGenerator, plan: Plan, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Draw this process's share; yields (index of the first image, uint8 [b, H, W, 3])."""
    processes, total = Processes.current(), len(plan.images)
    share = processes.share(total)
    with ProgressBar(total, "draw", disable=not processes.is_main) as bar:
        for start, images in draw(generator, plan.images[share.start : share.stop], batch_size):
            yield share.start + start, images.permute(0, 2, 3, 1).contiguous().numpy()
            bar.update(min(len(images) * processes.size, total - bar.n))


def _draw_all(generator: LoadedGenerator, plan: Plan, file: Path, batch_size: int) -> np.ndarray:
    """Return all images [N, H, W, 3], a memory-mapped file that the processes fill together."""
    size = generator.config.resolution
    if Processes.current().is_main:
        np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(plan.images), size, size, 3)).flush()
    _wait_for_all()
    images = np.lib.format.open_memmap(file, mode="r+")
    for start, batch in _draw_share(generator, plan, batch_size):
        images[start : start + len(batch)] = batch
    images.flush()
    _wait_for_all()
    return images


def _write_folder(generator: LoadedGenerator, plan: Plan, folder: Path, batch_size: int) -> None:
    """Write a PNG per image."""
    files = [folder / f"{name}.png" for row in plan.names for name in row]
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(ENCODERS) as encoders:
        for start, batch in _draw_share(generator, plan, batch_size):
            list(encoders.map(_save_png, batch, files[start : start + len(batch)]))
    _wait_for_all()


def _save_png(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, compress_level=1)


def _write_file(images: np.ndarray, plan: Plan, path: Path, output: Output, scale: int) -> None:
    """Write all images [N, H, W, 3] as the .npz, animation, sheet or folder of sheets."""
    if output.kind == ".npz":
        _write_npz(path, plan)
        return
    by_row = images.reshape(len(plan.rows), -1, *images.shape[1:])
    if output.kind in FILMS:
        write_film(by_row, path, output.fps, scale)
        return
    rows = [torch.from_numpy(np.ascontiguousarray(row)).permute(0, 3, 1, 2) for row in by_row]
    if not output.sheets:
        draw_sheet(rows, plan.titles, groups=plan.groups, columns=plan.columns, scale=scale).save(path)
        return
    path.mkdir()
    across = math.ceil(math.sqrt(len(rows[0])))
    for row, title, planned in zip(rows, plan.titles, plan.rows, strict=True):
        words = "".join(letter if letter.isalnum() else "_" for letter in title)[:60]
        lines, name = row.split(across), f"{title}, seeds {planned[0].seed} to {planned[-1].seed}"
        sheet = draw_sheet(lines, [""] * len(lines), groups=[(name, across)], scale=scale)
        sheet.save(path / f"{planned[0].label:04d}-{words}.png")


def _write_npz(path: Path, plan: Plan) -> None:
    """Write ADM's layout, arr_0 uint8 [N, H, W, 3] and arr_1 classes [N]; images are copied from disk."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.write(path.with_name("images.npy"), "arr_0.npy")
        if plan.labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, np.array(plan.labels, np.int64))
