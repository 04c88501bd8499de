"""Check a data set before training: read every file, count the classes, and draw augmented samples."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hamgan.data import image_order
from hamgan.distributed.cores import core_count
from hamgan.errors import DataError
from hamgan.progress import ProgressBar
from hamgan.sampling.outputs import check_file
from hamgan.segmentation.augment import augment, random_at
from hamgan.segmentation.data.opening import open_source
from hamgan.segmentation.data.source import IGNORED, SegmentationSource
from hamgan.segmentation.drawing import colourise, draw_comparison, overlay
from hamgan.segmentation.schema import SegmentationConfig

ROWS, CROPS = 6, 3
"""Number of images on the sheet, and of augmented crops of each."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""File extensions that the sheet may have."""
SHOWN = 5
"""Number of problems that are printed individually."""


def inspect(config: SegmentationConfig, output: Path) -> None:
    """Print how many images, pixels and classes a split has, and draw augmented samples.

    Raises DataError, after all files were read, with the number of unusable ones.
    """
    check_file(output, endings=PICTURES)
    source = open_source(config.data)
    counts, sizes, problems = _read_all(source, config.data.threads or core_count())
    print(f"{source.name}/{source.split}: {len(source):,} images, {len(source.class_names)} classes")
    print(f"sizes: {_describe_sizes(sizes)}")
    print(_histogram(counts, source.class_names))
    if missing := [name for name, count in zip(source.class_names, counts[:IGNORED], strict=False) if not count]:
        print(f"{len(missing)} classes occur nowhere: {', '.join(missing)}")
    if problems:
        for problem in problems[:SHOWN]:
            print(f"  {problem}")
        share = f"{len(problems):,} of {len(source):,}"
        raise DataError(f"{share} images of {source.name} cannot be used; the first: {problems[0]}")
    _draw(source, config, output)
    print(f"sheet {output}: image, labels, {CROPS} augmented crops")


def _read_all(source: SegmentationSource, threads: int) -> tuple[np.ndarray, Counter[tuple[int, int]], list[str]]:
    """Return pixels per label [256], images per size (width, height), and the problems of unusable images."""
    counts, sizes, problems = np.zeros(IGNORED + 1, np.int64), Counter[tuple[int, int]](), list[str]()

    def read(index: int) -> tuple[np.ndarray, tuple[int, int]] | str:
        try:
            labels = source.read(index).labels
        except DataError as error:
            return str(error)
        return np.bincount(labels.ravel(), minlength=IGNORED + 1), (labels.shape[1], labels.shape[0])

    with ThreadPoolExecutor(threads, "inspect") as pool, ProgressBar(len(source), "inspect") as bar:
        for found in pool.map(read, range(len(source))):
            if isinstance(found, str):
                problems.append(found)
            else:
                counts += found[0]
                sizes[found[1]] += 1
            bar.update()
    return counts, sizes, problems


def _describe_sizes(sizes: Counter[tuple[int, int]]) -> str:
    if not sizes:
        return "none"
    common = ", ".join(f"{width} x {height} ({count:,})" for (width, height), count in sizes.most_common(3))
    return f"{common}{f' and {len(sizes) - 3:,} more' if len(sizes) > 3 else ''}"


def _histogram(counts: np.ndarray, names: list[str]) -> str:
    total, width = max(1, int(counts.sum())), max(len("(ignored)"), *map(len, names))
    rows = [*zip(names, counts.tolist(), strict=False), ("(ignored)", int(counts[IGNORED]))]
    return "\n".join(f"{name:<{width}} {count:>15,} pixels {count / total:7.2%}" for name, count in rows)


def _draw(source: SegmentationSource, config: SegmentationConfig, output: Path) -> None:
    rows, titles = [], []
    for position, index in enumerate(image_order(len(source), config.seed, 0, min(ROWS, len(source))).tolist()):
        sample = source.read(index)
        row = [sample.image, colourise(sample.labels, source.palette)]
        for crop in range(CROPS):
            made = augment(sample, config.augment, random_at(config.seed, crop, position))
            pixels, labels = made.image.permute(1, 2, 0).numpy(), made.labels.numpy()
            row.append(overlay(pixels, labels, source.palette, 0.35))
        rows.append(tuple(row))
        titles.append(source.key(index)[-24:])
    columns = ["image", "labels", *(f"crop {number}" for number in range(1, CROPS + 1))]
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_comparison(rows, titles, columns, source.class_names, source.palette).save(output)
