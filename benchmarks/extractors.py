"""Measure the other extractors beside the networks whose numbers they equal, and distances beside ``prdc``."""

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.networks import load_ours, load_theirs, weights_file, with_versions
from benchmarks.random_weights import CLIP_SIZES, random_dinov2, save_random_clip, save_random_inception
from benchmarks.report import Table
from benchmarks.timing import Timings, Work, peak_resident, time_in_turn
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.metrics.prdc import compare_neighbours


class Case(NamedTuple):
    """Name an extractor and its resize, with the number that they are for."""

    number: str
    name: str
    resizer: str
    images: int
    """Images per call on a CPU."""


CASES = (
    Case("sFID", "inception-spatial", "native", 8),
    Case("FID, clean resize", "inception", "clean", 8),
    Case("FD-DINOv2", "dinov2-vit-l-14", "native", 4),
    Case("FD-DINOv2 antialiased", "dinov2-vit-l-14", "antialiased", 4),
    Case("CLIP-FID", "clip-vit-b-32", "native", 16),
    Case("CMMD", "clip-vit-l-14-336", "native", 2),
)
OURS, THEIRS = "hamgan", "package"
ROWS = 5_000
"""Features a side for the distances."""


def measure_extractors(
    images: Tensor, folder: Path, rounds: int, device: torch.device
) -> tuple[Table, dict[str, Timings]]:
    """Measure the images per second of both sides in turn, extractor by extractor; a table and the figures."""
    found, rows = {}, []
    for case in CASES:
        file = weights_file(case.name, folder)
        if not file.exists():
            _save_random(case.name, file)
        package, theirs = load_theirs(case.name, case.resizer, folder, device)
        ours = load_ours(case.name, case.resizer, folder, device)
        batch = images if device.type != "cpu" else images[: case.images]
        with torch.inference_mode():
            works: dict[str, Work] = {OURS: partial(ours, batch), THEIRS: partial(theirs, batch)}
            timings = found[case.number] = time_in_turn(works, rounds, device=device)
        speeds = [len(batch) / timings.median(name) for name in (OURS, THEIRS)]
        spread = max(timings.spread(name) for name in (OURS, THEIRS))
        rows.append([case.number, package, *speeds, timings.ratio(THEIRS, OURS), f"{spread:.0%}", len(batch)])
        del ours, theirs, works
    headers = [
        "number",
        "package",
        "hamgan, images/s",
        "package, images/s",
        "times the package",
        "spread",
        "images a call",
    ]
    return Table(headers, rows, "Extractors beside the packages that their numbers equal, random weights"), found


def _save_random(name: str, file: Path) -> None:
    """Write random weights of the published size."""
    if name.startswith("inception"):
        save_random_inception(file)
    elif name.startswith("dinov2"):
        torch.save(random_dinov2(dinov2.DEPTH).state_dict(), file)
    else:
        save_random_clip(file, name, *CLIP_SIZES[name])


def measure_neighbours(rounds: int, dimension: int) -> tuple[Table, dict[str, object]]:
    """Measure precision, recall, density and coverage beside ``prdc``, all by 5 neighbours: time and peak memory."""
    from prdc import compute_prdc

    generator = torch.Generator().manual_seed(0)
    samples, reference = (torch.randn(ROWS, dimension, generator=generator) for _ in range(2))

    def by_prdc() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            return dict(compute_prdc(reference.numpy(), samples.numpy(), nearest_k=5))

    def by_us() -> dict[str, float]:
        return compare_neighbours(samples, reference, 5, 5)

    theirs = with_versions("prdc {prdc}")
    works = {OURS: by_us, theirs: by_prdc}
    timings = time_in_turn(works, min(rounds, 3), warmup=0)
    memory = {name: peak_resident(work) for name, work in works.items()}
    rows = [
        [name, timings.median(name), f"{timings.ratio(name, theirs):.1%}", peak / 2**20 if peak else None]
        for name, peak in memory.items()
    ]
    title = f"Precision, recall, density and coverage of {ROWS:,} features of length {dimension} a side"
    return Table(["what", "s", f"/ {theirs}", "peak MiB"], rows, title), {"time": timings.to_json(), "memory": memory}
