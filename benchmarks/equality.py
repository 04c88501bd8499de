"""Compare every metric with the package that people quote, on the same real images and random weights.

Run by ``torchrun`` with a folder that `run` has filled, this file writes our own numbers, on one or two processes.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import load_ours
from benchmarks.random_weights import random_dinov2, save_random_clip, save_random_inception, scale_features
from benchmarks.references import Expected, expected_numbers
from benchmarks.report import Report, Table, write_tables_into_page
from hamgan.distributed.group import Processes, joined_processes, world_size
from hamgan.errors import ConfigError
from hamgan.evaluation import FeatureExtractor, evaluate
from hamgan.evaluation.inputs.images import FolderImages

MEASURES: dict[str, tuple[str, dict[str, Any]]] = {
    "inception": ("fid,is,kid,prc,density_coverage,mind", {}),
    "inception kid rbf": ("kid", {"kid_kernel": "rbf"}),
    "inception clean": ("fid", {"resizer": "clean"}),
    "inception-spatial": ("fid", {}),
    "dinov2-vit-l-14": ("fid", {}),
    "dinov2-vit-l-14 antialiased": ("fid", {"resizer": "antialiased"}),
    "clip-vit-b-32": ("fid", {}),
    "clip-vit-l-14-336": ("cmmd", {}),
}
"""Passes over the images: the extractor and what tells it from others, metrics, options."""
PACKAGES = ("open_clip", "timm", "cleanfid", "prdc", "pytorch_fid")


def run(options: argparse.Namespace) -> Report:
    """Measure with this package, on one and two processes, and with the others; return the table of differences."""
    from benchmarks.evaluate import save_crops

    if options.images < 12:
        raise ConfigError(f"--images is {options.images}; the Inception Score's splits and neighbours need 12 or more")
    if missing := [name for name in PACKAGES if not _can_be_imported(name)]:
        files = "-r requirements-dev.txt -r requirements-segmentation.txt"
        raise ConfigError(f"cannot be imported: {', '.join(missing)}; `pip install {files}`")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for split in ("val", "train"):
            save_crops(split, options.images, folder / split)
        save_weights(folder)
        alone, both = (_measure_on_processes(folder, count) for count in (1, 2))
        expected = expected_numbers(folder, kid_options(options.images))
    report = make_report(alone, both, expected, options.images)
    if options.docs:
        write_tables_into_page(report, options.docs, "equality")
    return report


def _can_be_imported(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def kid_options(images: int) -> dict[str, int]:
    """Return KID's subsets: of 100 images, or of half the images if there are fewer than 200."""
    return {"kid_subsets": 20, "kid_subset_size": min(100, images // 2)}


def save_weights(folder: Path) -> None:
    """Write random weights in the published formats; transformers have few blocks."""
    scale_features(save_random_inception(folder / "inception.pth"), 1 / 500)
    torch.save(random_dinov2().state_dict(), folder / "dinov2.pth")
    save_random_clip(folder / "clip-vit-b-32.pt", "clip-vit-b-32", width=256, depth=2)
    save_random_clip(folder / "clip-vit-l-14-336.pt", "clip-vit-l-14-336")


def _measure_on_processes(folder: Path, count: int) -> dict[str, float]:
    """Start ``count`` processes that measure, and read what they wrote."""
    output = folder / f"numbers-{count}.json"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    subprocess.run([*launcher, "-m", "benchmarks.equality", str(folder), str(output)], check=True)
    found: dict[str, float] = json.loads(output.read_text())
    if (processes := found.pop("processes")) != count:
        raise ConfigError(f"{count} processes were started, but {processes:g} measured")
    return found


def measure_all(folder: Path) -> dict[str, float]:
    """Return our numbers by pass and name; every process of torch.distributed takes its share."""
    found: dict[str, float] = {}
    subsets = kid_options(len(FolderImages(folder / "val")))
    extractors: dict[tuple[str, str], FeatureExtractor] = {}
    for measure, (metrics, options) in MEASURES.items():
        name, resizer = measure.split()[0], options.get("resizer", "native")
        if (name, resizer) not in extractors:
            extractors[name, resizer] = load_ours(name, resizer, folder)
        extractor = extractors[name, resizer]
        row = evaluate(
            folder / "val", folder / "train", metrics.split(","), name, extractor=extractor, device="cpu",
            progress=False, cache=folder / f"cache-{world_size()}", **subsets | options,
        )  # fmt: skip
        for key in ("fid", "inception_score", "kid", "precision", "recall", "density", "coverage", "mind", "cmmd"):
            if extractor.key(key) in row:
                found[f"{measure} {key}"] = row[extractor.key(key)]
    return found | {"processes": float(world_size())}


def make_report(
    alone: Mapping[str, float], both: Mapping[str, float], expected: Mapping[str, Expected], images: int
) -> Report:
    """Return the table: a row per number, with its relative differences from the package and between processes."""
    rows, figures = [], {}
    for key, (title, package, value) in expected.items():
        difference, between = (_relative(other, alone[key]) for other in (value, both[key]))
        rows.append([title, package, f"{alone[key]:.6g}", f"{value:.6g}", f"{difference:.1e}", f"{between:.1e}"])
        figures[key] = {"ours": alone[key], "package": value, "difference": difference, "processes": between}
    worst, apart = (max(figures[key][what] for key in figures) for what in ("difference", "processes"))
    protocol = f"{images} real images a side (crops of photographs, val against train, 128 px), random weights, CPU."
    headers = ["number", "equal to", "hamgan", "package", "relative difference", "2 processes against 1"]
    summary = f"Largest relative difference from a package {worst:.1e}, between one and two processes {apart:.1e}"
    verdict = [f"{summary}."]
    return Report("Equality of numbers", protocol, [Table(headers, rows)], verdict, figures)


def _relative(other: float, ours: float) -> float:
    """Return the relative difference of two numbers; infinite where one is not finite."""
    difference = abs(other - ours) / (abs(ours) or 1.0)
    return difference if math.isfinite(difference) else math.inf


if __name__ == "__main__":
    with joined_processes():
        numbers = measure_all(Path(sys.argv[1]))
        if Processes.current().is_main:
            Path(sys.argv[2]).write_text(json.dumps(numbers))
