"""The largest batch that fits a GPU, with and without recomputed blocks: computed on tensors without data.

A whole training step runs on fake tensors, and the bytes of all live ones are followed, operator by operator: weights,
gradients, Adam, the average of G and what autograd keeps. Not among them: the CUDA context, cuDNN's workspaces and the
allocator's gaps, for which ``--reserve`` leaves room.
"""

import argparse
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hamgan.benchmarks.configuration import read_config
from hamgan.benchmarks.operators import tensors_in
from hamgan.benchmarks.report import Report, Table
from hamgan.benchmarks.steps import Workload, draw_batches
from hamgan.config import Config, ConfigError
from hamgan.networks import build_networks
from hamgan.step import GanStep

GIB = 2**30
BATCHES = (128, 256)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which configurations, and how much memory there is."""
    parser.add_argument("--config", nargs="+", type=Path, default=[None], help="YAML files (default: the default one)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the configurations")
    parser.add_argument("--gigabytes", type=float, default=80.0, help="memory of one GPU, in 10^9 bytes (default: 80)")
    parser.add_argument("--reserve", type=float, default=0.1, help="share of it that is left alone (default: 0.1)")


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of all storages that were made inside it (or shown to it) and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is released."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in((result,)):
            self.see(tensor)
        return result


def step_bytes(config: Config, batch: int, accelerator: Accelerator) -> int:
    """Peak of live bytes in the second training step (Adam's state is there) on ``batch`` images.

    The weights are real, and all that is made of them has no data.
    """
    generator, discriminator = replace(config.generator, init="normal"), replace(config.discriminator, init="normal")
    config = replace(config, generator=generator, discriminator=discriminator)  # the fastest to draw
    step = GanStep(*build_networks(config), config.train, accelerator)
    networks = [network for network in (step.generator, step.discriminator, step.average) if network is not None]
    with FakeTensorMode(allow_non_fake_inputs=True):
        workload = Workload(step, *draw_batches(config, step, batch))
        with LiveBytes() as live:
            for network in networks:
                for tensor in (*network.parameters(), *network.buffers()):
                    live.see(tensor)
            workload()
            live.peak = live.alive
            workload()
    return live.peak


@dataclass(frozen=True)
class Need:
    """Bytes of a step: some whatever the batch, and some per image."""

    fixed: float
    per_image: float

    def largest_batch(self, limit: float) -> int:
        """Images that fit, a multiple of 8; 0 where not even the weights do."""
        return max(0, int((limit - self.fixed) / self.per_image) // 8 * 8)


def _line(low: tuple[int, int], high: tuple[int, int]) -> Need:
    """Through two batch sizes and their bytes."""
    per_image = (high[1] - low[1]) / (high[0] - low[0])
    return Need(low[1] - low[0] * per_image, per_image)


def measure_need(config: Config, recompute: bool, limit: float, accelerator: Accelerator) -> Need:
    """The line through the bytes of about the largest batch and a smaller one: what a layer keeps depends on sizes."""
    config = replace(config, train=replace(config.train, recompute=recompute, compile=False))
    low, high = ((batch, step_bytes(config, batch, accelerator)) for batch in BATCHES)
    need = _line(low, high)
    guess = need.largest_batch(limit)
    if guess in (0, *BATCHES):
        return need
    return _line(high, (guess, step_bytes(config, guess, accelerator)))


def run(options: argparse.Namespace) -> Report:
    """A table of all configurations, in bf16 autocast."""
    if options.gigabytes <= 0 or not 0 <= options.reserve < 1:
        raise ConfigError("--gigabytes must be above 0, --reserve from 0 to below 1")
    limit = options.gigabytes * 1e9 * (1 - options.reserve)
    configs = [read_config(path, options.set) for path in options.config]
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    rows: list[list[object]] = []
    verdict, figures = [], {}
    for path, config in zip(options.config, configs, strict=True):
        kept, recomputed = (measure_need(config, recompute, limit, accelerator) for recompute in (False, True))
        largest = [need.largest_batch(limit) for need in (kept, recomputed)]
        name = path.stem if path else config.name
        rows += [
            [name, how, need.fixed / GIB, need.per_image / 2**20, batch]
            for how, need, batch in (("kept", kept, largest[0]), ("recomputed", recomputed, largest[1]))
        ]
        figures[name] = {"kept": vars(kept), "recomputed": vars(recomputed), "largest": largest}
        verdict.append(
            f"{name}: {largest[0]} images per GPU, {largest[1]} with train.recompute, which keeps "
            f"{recomputed.per_image / kept.per_image:.2f} of the memory per image."
        )
    headers = ["configuration", "blocks", "fixed GiB", "MiB / image", "largest batch"]
    title = f"{options.gigabytes:g} GB, of which {options.reserve:.0%} are left alone"
    protocol = "Computed by following live tensors through a step on fake ones, bf16 autocast; no GPU was measured."
    return Report("Memory of a training step", protocol, [Table(headers, rows, title)], verdict, figures)
