"""Report on inverted pictures: lines, a sheet, a file of latents."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hamgan.checkpoint.tensors import save_tensors
from hamgan.files import temporary_name
from hamgan.inversion.optimise import Inversion
from hamgan.inversion.quality import Quality, mean_quality
from hamgan.sampling.sheets import draw_sheet

FORMAT = "hamgan-inversion-1"


@dataclass(frozen=True)
class Result:
    """Hold a picture and its inversion."""

    file: Path
    target: Tensor
    """uint8 [3, R, R]."""
    found: Inversion
    class_name: str
    quality: Quality
    baseline: Quality
    """Quality of the nearest random sample of the found class."""


def describe(results: Sequence[Result], samples: int) -> list[str]:
    """Return one line per picture, and one with the averages if there are several."""
    lines = [
        f"{item.file.name}: {item.class_name}, {item.quality} (best of {samples} random samples: {item.baseline})"
        for item in results
    ]
    if len(results) > 1:
        mean, baseline = mean_quality([i.quality for i in results]), mean_quality([i.baseline for i in results])
        lines.append(f"average: {mean} (best of {samples} random samples: {baseline})")
    return lines


def save_results(results: Sequence[Result], checkpoint: str, samples: int, sheet: Path) -> Path:
    """Write the sheet (PNG), and the latents and labels next to it as safetensors; returns the latter's path.

    Tensors: z [N, latent_dim] and labels [N] for ``generator.images(z, labels)``, baseline_seeds [N], and the figures
    psnr, ssim, cosine [N], those of the baseline with the prefix `baseline_`. Both files are written atomically.
    """
    latents = sheet.with_suffix(".safetensors")
    tensors = {
        "z": torch.stack([item.found.z for item in results]),
        "labels": torch.tensor([item.found.label for item in results]),
        "baseline_seeds": torch.tensor([item.found.baseline_seed for item in results]),
    }
    for name in ("psnr", "ssim", "cosine"):
        tensors[name] = torch.tensor([getattr(item.quality, name) for item in results])
        tensors[f"baseline_{name}"] = torch.tensor([getattr(item.baseline, name) for item in results])
    header = {"format": FORMAT, "checkpoint": checkpoint}
    header["images"] = json.dumps([str(item.file) for item in results])
    header["classes"] = json.dumps([item.class_name for item in results])
    partial_sheet, partial_latents = temporary_name(sheet), temporary_name(latents)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    try:
        _draw(results, samples, partial_sheet)
        save_tensors(tensors, partial_latents, header)
        partial_latents.replace(latents)
        partial_sheet.replace(sheet)
    finally:
        partial_sheet.unlink(missing_ok=True)
        partial_latents.unlink(missing_ok=True)
    return latents


def _draw(results: Sequence[Result], samples: int, file: Path) -> None:
    rows = [torch.stack([item.target, item.found.image, item.found.baseline]) for item in results]
    titles = [
        f"{item.file.name[:40]} as {item.class_name[:24]}, {item.quality.psnr:.1f} dB (random {item.baseline.psnr:.1f})"
        for item in results
    ]
    groups = [("target", 1), ("reconstruction", 1), (f"best of {samples}", 1)]
    draw_sheet(rows, titles, groups=groups).save(file, format="PNG")
