"""How a step grows with processes: a model of its all-reduces for up to 512 GPUs, checked on two CPU processes.

Per step every process sends the gradients of D and of G (float32, buckets of 25 MB that overlap with backward) and,
with batch norm over all processes, one small sum per norm and pass. A ring all-reduce of b bytes over n processes moves
2 (n - 1) / n b through every process. ``--step-ms`` is the step of one GPU without communication: the default is a
roofline estimate, not a measurement. ``--check`` measures the same quantities between two gloo processes here.
"""

import argparse
import math
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hamgan.benchmarks.report import Report, Table
from hamgan.config import Config, ConfigError, load_config
from hamgan.layers import BatchNorm
from hamgan.networks import build_networks, count_parameters

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PER_NODE = 8
BUCKET = 25e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration and the assumptions about machines."""
    parser.add_argument("--config", type=Path, help="YAML file (default: the default configuration)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the configuration")
    parser.add_argument("--step-ms", type=float, default=60.0, help="step of one GPU alone (default: 60, estimated)")
    parser.add_argument("--nvlink", type=float, default=300.0, help="GB/s per GPU inside a node of 8 (default: 300)")
    parser.add_argument("--network", type=float, default=40.0, help="GB/s per GPU between nodes (default: 40)")
    parser.add_argument("--latency-us", type=float, default=20.0, help="of a small all-reduce in a node (default: 20)")
    parser.add_argument("--hop-us", type=float, default=10.0, help="more for each doubling of the nodes (default: 10)")
    parser.add_argument("--overlap", type=float, default=0.8, help="share of backward that hides sums (default: 0.8)")
    parser.add_argument("--plot", type=Path, help="draw efficiency against GPUs into this file (.png, .svg)")
    parser.add_argument("--check", action="store_true", help="measure two gloo processes and compare with the model")


@dataclass(frozen=True)
class Links:
    """What all-reduces cost: bytes/s per process inside a node and between nodes, seconds of latency."""

    node: float
    network: float
    latency: float
    hop: float
    per_node: int = PER_NODE

    def all_reduce(self, size: float, processes: int) -> float:
        """Seconds of one ring all-reduce of ``size`` bytes; the slowest link decides."""
        if processes == 1:
            return 0.0
        nodes = math.ceil(processes / self.per_node)
        speed = self.node if nodes == 1 else min(self.node, self.network)
        latency = self.latency + self.hop * math.log2(nodes)
        return latency + 2 * (processes - 1) / processes * size / speed


@dataclass(frozen=True)
class Traffic:
    """What a step reduces: bytes of D's and of G's gradients, and the number and bytes of batch norm's sums."""

    discriminator: float
    generator: float
    sums: int
    sum_bytes: float


def traffic(config: Config) -> Traffic:
    """Of one step with one update each; batch norm sums in G's forward for D, its own forward and its backward."""
    with torch.device("meta"):
        generator, discriminator = build_networks(config)
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm) and module.cross_replica]
    channels = sum(norm.get_buffer("running_mean").numel() for norm in norms)
    passes = 3
    mean = 4.0 * 2 * channels / max(1, len(norms))
    return Traffic(4.0 * count_parameters(discriminator), 4.0 * count_parameters(generator), passes * len(norms), mean)


def step_seconds(alone: float, demand: Traffic, links: Links, processes: int, overlap: float) -> float:
    """A step on so many processes, the batch of each unchanged.

    Half of the step of D and of G each is taken for its backward, two thirds of it; what all-reduces take beyond
    ``overlap`` of it, and the last bucket, is waited for.
    """
    if processes == 1:
        return alone
    hidden = overlap * alone / 2 * 2 / 3
    waited = 0.0
    for size in (demand.discriminator, demand.generator):
        buckets = math.ceil(size / BUCKET)
        whole = buckets * links.all_reduce(0, processes) + links.all_reduce(size, processes)
        last = links.all_reduce(min(size, BUCKET), processes)
        waited += max(last, whole - hidden)
    return alone + waited + demand.sums * links.all_reduce(demand.sum_bytes, processes)


def run(options: argparse.Namespace) -> Report:
    """Efficiency of 1 to 512 GPUs under the assumptions, which the report repeats."""
    config = _read(options)
    links = Links(options.nvlink * 1e9, options.network * 1e9, options.latency_us / 1e6, options.hop_us / 1e6)
    demand = traffic(config)
    alone = options.step_ms / 1e3
    rows: list[list[object]] = []
    seconds = {count: step_seconds(alone, demand, links, count, options.overlap) for count in GPUS}
    for count, taken in seconds.items():
        rows.append([count, 1e3 * taken, 1e3 * (taken - alone), f"{alone / taken:.1%}"])
    assumptions = (
        f"A model, not a measurement. Assumed: {options.step_ms:g} ms per step on one GPU, {PER_NODE} GPUs per node, "
        f"{options.nvlink:g} GB/s per GPU inside a node, {options.network:g} GB/s between nodes, "
        f"{options.latency_us:g} us per all-reduce and {options.hop_us:g} us for each doubling of the nodes; "
        f"{options.overlap:.0%} of backward hides gradients. Every GPU keeps its batch. Reduced per step: "
        f"{demand.discriminator / 1e6:,.0f} MB (D), {demand.generator / 1e6:,.0f} MB (G), {demand.sums} sums of batch "
        f"norm."
    )
    table = Table(["GPUs", "ms / step", "of which waiting", "efficiency"], rows, f"Scaling of {config.name}")
    verdict = [f"Efficiency {alone / seconds[count]:.1%} on {count} GPUs." for count in (8, 64, 512)]
    figures = {"traffic": asdict(demand), "links": asdict(links), "seconds": {str(n): s for n, s in seconds.items()}}
    report = Report("Scaling with processes", assumptions, [table], verdict, figures)
    if options.plot:
        draw(seconds, assumptions, options.plot)
    if options.check:
        from hamgan.benchmarks.two_processes import check

        check(report, options.rounds)
    return report


def _read(options: argparse.Namespace) -> Config:
    for name in ("step_ms", "nvlink", "network"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be above 0")
    if not 0 <= options.overlap <= 1:
        raise ConfigError(f"--overlap is {options.overlap}; allowed: 0 to 1")
    if options.plot and options.plot.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot {options.plot} must end in .png or .svg")
    overrides = options.set if any("num_classes" in item for item in options.set) else ["data.num_classes=1000"]
    return load_config(options.config, [*options.set, *overrides])


def draw(seconds: dict[int, float], assumptions: str, path: Path) -> None:
    """Efficiency against the number of GPUs, the assumptions below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(seconds), [100 * seconds[1] / taken for taken in seconds.values()], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(seconds), [str(count) for count in seconds])
    axes.set(xlabel="GPUs", ylabel="efficiency, % of perfect scaling", ylim=(0, 105), title="Model of all-reduces")
    axes.grid(alpha=0.3)
    figure.supxlabel("\n".join(textwrap.wrap(assumptions, 110)), fontsize=7)
    figure.savefig(path, dpi=120)
