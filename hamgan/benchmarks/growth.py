"""How a training step grows with batch, width, resolution and the tokens of the context blocks, one at a time.

Every row changes one thing of the configuration and is timed in turn with the others. ``context`` is the size of the
map behind which both networks have their context block: half the resolution, where the row does not say otherwise.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from hamgan.benchmarks.configuration import (
    add_config_arguments,
    benchmark_accelerator,
    precision_of,
    read_step_config,
)
from hamgan.benchmarks.report import Report, Table
from hamgan.benchmarks.steps import make_workload
from hamgan.benchmarks.timing import count_flops, interleaved, peak_memory
from hamgan.config import RESOLUTIONS, Config, ConfigError, latent_chunks

BASE = "as configured"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What stands in the middle."""
    parser.set_defaults(rounds=5)
    add_config_arguments(parser)
    parser.add_argument("--batch", type=int, default=8, help="images per step, an even number (default: 8)")


@dataclass(frozen=True)
class Variant:
    """A step that differs from the configured one in one respect."""

    name: str
    batch: int
    config: Config


def run(options: argparse.Namespace) -> Report:
    """Time, arithmetic and memory of every variant, and how often those of the configured step."""
    if options.batch < 2 or options.batch % 2:
        raise ConfigError(f"--batch is {options.batch}; it must be an even number, which can be halved")
    variants = list(make_variants(options.config, options.set, options.batch))
    base = variants[0].config
    accelerator = benchmark_accelerator(base, options.device)
    works = {one.name: make_workload(one.config, "fast", one.batch, accelerator) for one in variants}
    timings = interleaved(works, options.rounds, warmup=2, device=options.device)
    memory = {name: peak_memory(work, options.device) for name, work in works.items()}
    flops = {name: count_flops(work) for name, work in works.items()}
    rows = [
        [
            name,
            1e3 * timings.median(name),
            timings.ratio(name, BASE),
            flops[name] / flops[BASE],
            flops[name] / timings.median(name) / 1e9,
            memory[name] / memory[BASE],
            f"{timings.spread(name):.0%}",
        ]
        for name in works
    ]
    headers = ["what is changed", "ms", "time x", "FLOP x", "GFLOP/s", "memory x", "spread"]
    threads = f", {torch.get_num_threads()} CPU thread(s)" if options.device.type == "cpu" else ""
    precision = precision_of(accelerator)
    widths = f"{base.generator.channels} and {base.discriminator.channels}"
    return Report(
        f"Growth of a step of {base.name}",
        f"{base.resolution} px, widths {widths}, batch {options.batch}, {precision}{threads}; medians of "
        f"{options.rounds} rounds in turn. Memory: beyond weights and optimisers.",
        [Table(headers, rows, "One step of D and G; x: times the first row")],
        [_sentence(name, timings.ratio(name, BASE), flops[name] / flops[BASE]) for name in list(works)[1:]],
        {"timings": timings.to_json(), "peak_bytes": memory, "flops": flops},
    )


def _sentence(name: str, time: float, flops: float) -> str:
    return f"{name}: {time:.2f} times the time for {flops:.2f} times the arithmetic."


def make_variants(file: Path | None, overrides: list[str], batch: int) -> Iterator[Variant]:
    """The configured step first. Raises ConfigError for what the configuration does not allow."""
    given = read_step_config(file, overrides)

    def changed(*values: str) -> Config:
        return read_step_config(file, [*overrides, *values])

    def contexts(size: int) -> list[str]:
        return [f"{network}.context_resolutions=[{size}]" for network in ("generator", "discriminator")]

    half = given.resolution // 2
    yield Variant(BASE, batch, changed(*contexts(half)))
    yield Variant(f"batch {batch // 2}", batch // 2, changed(*contexts(half)))
    yield Variant(f"batch {2 * batch}", 2 * batch, changed(*contexts(half)))
    widths = {name: 2 * getattr(given, name).channels for name in ("generator", "discriminator")}
    wider = [f"{name}.channels={width}" for name, width in widths.items()]
    yield Variant(
        f"widths {widths['generator']} and {widths['discriminator']}", batch, changed(*contexts(half), *wider)
    )
    for resolution in (given.resolution // 2, 2 * given.resolution):
        if resolution in RESOLUTIONS:
            yield Variant(f"{resolution} px", batch, changed(*contexts(resolution // 2), *_at(given, resolution)))
    yield Variant(f"context {half // 2}", batch, changed(*contexts(half // 2)))
    yield Variant("no context block", batch, changed("generator.context=none", "discriminator.context=none"))


def _at(config: Config, resolution: int) -> list[str]:
    """The overrides of a resolution: a hierarchical latent keeps the size of its chunks, not their number."""
    chunk = config.generator.latent_dim // latent_chunks(config.resolution)
    latent = chunk * latent_chunks(resolution) if config.generator.hierarchical else config.generator.latent_dim
    return [f"resolution={resolution}", f"generator.latent_dim={latent}"]
