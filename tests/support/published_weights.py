"""Take random weights in the published formats for the published files, in tests."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.random_weights import random_dinov2, save_random_clip, save_random_inception
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.evaluation.features.weights import PublishedWeights
from hamgan.files import sha256


def write_random_weights(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Write a file of random weights for each extractor; transformers have one block."""
    files = {}
    for name in names:
        if name.startswith("inception"):
            file = folder / "inception.pth"
            files[name] = file if file.exists() else save_random_inception(file)
        elif name.startswith("dinov2"):
            files[name] = folder / "dinov2.pth"
            torch.save(random_dinov2().state_dict(), files[name])
        else:
            files[name] = save_random_clip(folder / f"{name}.pt", name)
    return files


def take_for_published(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the extractors take these files for the published ones."""
    monkeypatch.setattr(dinov2, "DEPTH", 1)
    for name, file in files.items():
        weights = ARCHITECTURES[name].weights
        assert isinstance(weights, PublishedWeights)
        monkeypatch.setenv(weights.variable, str(file))
        random = dataclasses.replace(weights, sha256=sha256(file)[:16])
        monkeypatch.setitem(ARCHITECTURES, name, dataclasses.replace(ARCHITECTURES[name], weights=random))
