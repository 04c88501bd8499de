"""What a run says about itself: the lines at its start and the state of its networks in every logged row."""

import torch

from hamgan.config import Config
from hamgan.data import ImageSource, class_histogram
from hamgan.layers import SpectralWeight
from hamgan.networks import Discriminator, Generator, count_parameters
from hamgan.noise import Noise
from hamgan.step import GanStep


def describe_run(config: Config, source: ImageSource, step: GanStep, noise: Noise) -> list[str]:
    """Run folder, data, networks, how the batch is made up, device and precision: a line each."""
    train, histogram = config.train, class_histogram(source)
    precision = step.accelerator.mixed_precision.replace("no", "fp32")
    return [
        f"run       {config.folder}",
        f"data      {source.name}/{source.split}: {len(source):,} images at {config.resolution} px, "
        f"{len(histogram)} classes of {histogram.min():,} to {histogram.max():,} images",
        f"networks  G {count_parameters(step.generator):,} and D {count_parameters(step.discriminator):,} parameters",
        f"batch     {train.batch_size} images = {noise.processes} process(es) x {train.accumulation} accumulation x "
        f"{noise.local_batch}",
        f"device    {step.accelerator.device}, {precision}, TF32 {'on' if train.tf32 else 'off'}",
    ]


def network_metrics(generator: Generator, discriminator: Discriminator) -> dict[str, float]:
    """Largest and mean singular value of each network and the gate of every context block; reads from the device."""
    metrics: dict[str, float] = {}
    for letter, network in (("g", generator), ("d", discriminator)):
        weights = [module for module in network.modules() if isinstance(module, SpectralWeight)]
        sigmas = torch.stack([weight.get_buffer("sigma") for weight in weights])
        metrics |= {f"{letter}_sigma_max": float(sigmas.max()), f"{letter}_sigma_mean": float(sigmas.mean())}
        for size, context in network.contexts.items():
            gate = getattr(context, "gate", None)
            if gate is not None:  # v2+ has a learnt shortcut instead of one gate
                metrics[f"{letter}_gate_{size}"] = float(gate.detach())
    return metrics
