"""Share small generators, features and options among the tests of evaluation."""

from typing import Any

import torch

from hamgan.config import load_config
from hamgan.evaluation.metrics.fid import Moments
from hamgan.networks import Generator
from hamgan.sampling import LoadedGenerator

FID = "fid_efficientnet_lite0"
OPTIONS: dict[str, Any] = {"progress": False, "device": "cpu", "features": "efficientnet-lite0"}


def small_generator(**changes: Any) -> LoadedGenerator:
    torch.manual_seed(0)
    config = load_config(
        None,
        ["resolution=32", "generator.channels=4", "generator.latent_dim=8", "generator.class_embedding_dim=4"]
        + ["generator.context=none", "discriminator.context=none", "data.num_classes=15", "name=small"]
        + [f"{key}={value}" for key, value in changes.items()],
    )
    network = Generator(config.generator, config.resolution, config.data.num_classes or 1)
    return LoadedGenerator(network.eval(), config, kimg=1.5, source="small")


def features(count: int, dimension: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Draw correlated, non-negative and skewed features, as pooled ReLU features are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(9)) / dimension**0.5
    rows: torch.Tensor = torch.randn(count, dimension, generator=generator) @ mixing + shift
    return rows.relu()


def moments(rows: torch.Tensor, batch: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    sums = Moments(rows.shape[1])
    for part in rows.split(batch):
        sums.update(part)
    return sums.mean_and_covariance()
