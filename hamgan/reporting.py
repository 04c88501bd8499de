"""What a run says about itself: the lines at its start and the state of its networks in every logged row."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.checkpoint import Progress
from hamgan.config import Config
from hamgan.data import ImageSource, class_histogram
from hamgan.data.histogram import histogram_lines
from hamgan.networks import Discriminator, Generator, count_parameters
from hamgan.noise import Noise
from hamgan.spectral import SpectralWeight
from hamgan.step import GanStep


def describe_run(config: Config, source: ImageSource, step: GanStep, noise: Noise) -> list[str]:
    """Run folder, data with its classes, networks, how the batch is made up, device and precision."""
    train, histogram = config.train, class_histogram(source)
    evaluation = [_describe_evaluation(config)] if config.eval.every_kimg > 0 else []
    precision = step.accelerator.mixed_precision.replace("no", "fp32")
    return [
        f"run       {config.folder}",
        f"data      {source.name}/{source.split}: {len(source):,} images at {config.resolution} px, "
        f"{len(histogram):,} classes",
        *_labelled("classes", histogram_lines(source.class_names, histogram)),
        f"networks  G {count_parameters(step.generator):,} and D {count_parameters(step.discriminator):,} parameters",
        f"batch     {train.batch_size} images = {noise.processes} process(es) x {train.accumulation} accumulation x "
        f"{noise.local_batch}",
        f"device    {step.accelerator.device}, {precision}, TF32 {'on' if train.tf32 else 'off'}",
        *evaluation,
    ]


def _labelled(label: str, lines: list[str]) -> list[str]:
    return [f"{label if position == 0 else '':<10}{line}" for position, line in enumerate(lines)]


def _describe_evaluation(config: Config) -> str:
    from hamgan.evaluation.cost import evaluation_share  # torch-fidelity is not needed to train

    settings = config.eval
    return (
        f"evaluate  {settings.num_samples:,} samples every {settings.every_kimg:g} kimg: "
        f"{evaluation_share(config):.1%} of the run's FLOPs (counted, not timed)"
    )


def evaluation_metrics(row: dict[str, Any], seconds: float, progress: Progress) -> dict[str, float]:
    """The numbers of an evaluation for a row of metrics.jsonl, with what it cost."""
    kept = {name: value for name, value in row.items() if isinstance(value, float) and name not in _NOT_NUMBERS}
    return kept | {"evaluation_seconds": seconds, "evaluation_share": progress.evaluation_share}


_NOT_NUMBERS = ("kimg", "truncation", "seconds", "images_per_second")


@torch.no_grad()
def top_singular_value(layer: SpectralWeight) -> Tensor:
    """The largest singular value of a weight: of its last forward, or by power iteration where none is kept."""
    if not layer.folded:
        return layer.get_buffer("sigma")
    matrix = layer.weight.flatten(1).float()
    # Any start without a pattern, and always the same one: a resumed run reports the same.
    u = torch.arange(1.0, len(matrix) + 1, device=matrix.device).sin()
    for _ in range(10):
        v = F.normalize(matrix.mT @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return torch.dot(u, matrix @ v)


def network_metrics(generator: Generator, discriminator: Discriminator) -> dict[str, Any]:
    """Largest and mean singular value of each network, the gate of every context block, and ``sigmas``: every layer's.

    Reads from the device once.
    """
    layers: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    for letter, network in (("g", generator), ("d", discriminator)):
        for name, module in network.named_modules():
            if isinstance(module, SpectralWeight):
                layers[f"{letter}.{name}"] = top_singular_value(module)
        for size, context in network.contexts.items():
            gate = getattr(context, "gate", None)
            if gate is not None:  # v2+ has a learnt shortcut instead of one gate
                gates[f"{letter}_gate_{size}"] = gate.detach()
    values = torch.stack([value.float() for value in (*layers.values(), *gates.values())]).tolist()
    sigmas = dict(zip(layers, values[: len(layers)], strict=True))
    metrics: dict[str, Any] = dict(zip(gates, values[len(layers) :], strict=True))
    for letter in "gd":
        own = [value for name, value in sigmas.items() if name.startswith(letter)]
        metrics |= {f"{letter}_sigma_max": max(own), f"{letter}_sigma_mean": sum(own) / len(own)}
    return metrics | {"sigmas": {name: float(f"{value:.5g}") for name, value in sigmas.items()}}
