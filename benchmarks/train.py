"""The training step in its forms, where its time goes, and how long a run takes on this machine.

fast: as training runs it. plain: parametrised spectral norm, no merged convolutions, contiguous maps, eager, on the
same weights; it stands for BigGAN-PyTorch's way. compiled: fast, with train.compile. A step is one update of D, one of
G and one of G's average, on images made of noise.
"""

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any, get_args

import torch

from benchmarks.configuration import add_config_arguments, benchmark_accelerator, precision_of, read_step_config
from benchmarks.machine import Ceilings, measure_ceilings
from benchmarks.operators import KINDS, Demand, measure_demand, profile_kinds
from benchmarks.phases import phases
from benchmarks.report import Report, Table
from benchmarks.steps import Form, Workload, make_workload
from benchmarks.timing import Timings, Work, interleaved, peak_memory
from hamgan.config import Config
from hamgan.errors import ConfigError
from hamgan.networks.spectral_norm import SpectralWeight

FORMS: tuple[Form, ...] = get_args(Form)
STEP, WITHOUT_NORM = "whole step", "whole step without spectral norm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained and in which forms."""
    add_config_arguments(parser)
    parser.add_argument("--batches", default="8", help="images per step, with commas between (default: 8)")
    parser.add_argument("--forms", default="fast,plain", help=f"of {','.join(FORMS)} (default: fast,plain)")
    parser.add_argument("--gpus", default="1,8", help="devices that the run's length is told for (default: 1,8)")
    parser.add_argument("--no-profile", action="store_true", help="leave out phases and profiles")


def run(options: argparse.Namespace) -> Report:
    """Measure every batch size; the first form is the one that phases and the verdict speak of."""
    config, batches, gpus, forms = _read(options)
    accelerator = benchmark_accelerator(config, options.device)
    precision = precision_of(accelerator)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    ceilings = measure_ceilings(options.device, dtype)
    threads = "" if options.device.type != "cpu" else f", {torch.get_num_threads()} CPU thread(s)"
    report = Report(
        f"Training step of {config.name}",
        f"{config.resolution} px, widths {config.generator.channels} and {config.discriminator.channels}, {precision}"
        f"{threads}; medians of {options.rounds} rounds in turn. Ceilings of the same run: "
        f"{ceilings.matmul / 1e12:.3g} TFLOP/s in a {ceilings.dtype} matrix product, "
        f"{ceilings.bandwidth / 1e9:.3g} GB/s of memory.",
        figures={"ceilings": ceilings.to_json()},
    )
    for batch in batches:
        works = {form: make_workload(config, form, batch, accelerator) for form in forms}
        _measure_batch(report, works, batch, ceilings, options)
        if not options.no_profile:
            _measure_phases(report, config, works[forms[0]], batch, options)
    report.verdict.append(_length_of_run(config, report.figures, gpus))
    return report


def _read(options: argparse.Namespace) -> tuple[Config, list[int], list[int], list[Form]]:
    config = read_step_config(options.config, options.set)
    batches, gpus = _numbers("batches", options.batches), _numbers("gpus", options.gpus)
    forms = options.forms.split(",")
    for form in forms:
        if form not in FORMS:
            raise ConfigError(f"--forms has {form!r}; allowed: {', '.join(FORMS)}")
    return config, batches, gpus, list(dict.fromkeys(forms))


def _numbers(name: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{name} {text!r} must be whole numbers with commas between, as 8,16") from None
    if min(values) < 1:
        raise ConfigError(f"--{name} has {min(values)}; it must be 1 or more")
    return values


def _measure_batch(
    report: Report, works: dict[Form, Workload], batch: int, ceilings: Ceilings, options: argparse.Namespace
) -> None:
    """Time, memory and FLOPs of every form at one batch size."""
    steps: dict[str, Work] = {str(form): work for form, work in works.items()}
    timings = interleaved(steps, options.rounds, warmup=2, device=options.device)
    memory = {form: peak_memory(work, options.device) for form, work in works.items()}
    # Compiled work is not seen operator by operator; it has the fast form's operators, fused.
    demands: dict[Form, dict[str, Demand]] = {
        form: measure_demand(work, ceilings) for form, work in works.items() if form != "compiled"
    }
    rows = []
    for form in works:
        seconds, demand = timings.median(form), demands.get("fast" if form == "compiled" else form)
        flops = sum(part.flops for part in demand.values()) if demand else None
        rows.append(
            [
                form,
                1e3 * seconds,
                batch / seconds,
                timings.ratio(form, "plain") if "plain" in works else None,
                memory[form] / 2**20,
                flops / batch / 1e9 if flops else None,
                f"{flops / seconds / ceilings.matmul:.0%}" if flops else None,
                f"{timings.spread(form):.0%}",
            ]
        )
    headers = ["form", "ms", "images/s", "/ plain", "peak MiB", "GFLOP / image", "of the matmul ceiling", "spread"]
    report.tables.append(Table(headers, rows, f"Step at batch {batch}"))
    report.figures[str(batch)] = {
        "timings": timings.to_json(),
        "peak_bytes": memory,
        "demand": {form: {kind: asdict(part) for kind, part in kinds.items()} for form, kinds in demands.items()},
    }
    if "plain" in works:
        report.verdict += [_against_plain(batch, form, timings, memory) for form in works if form != "plain"]
    if not options.no_profile:
        _profile(report, works, batch, demands, timings, options.device)


def _against_plain(batch: int, form: Form, timings: Timings, memory: dict[Form, int]) -> str:
    return (
        f"Batch {batch}: the {form} form takes {timings.ratio(form, 'plain'):.2f} of the plain form's time and "
        f"{memory[form] / memory['plain']:.2f} of its memory."
    )


def _profile(
    report: Report,
    works: dict[Form, Workload],
    batch: int,
    demands: dict[Form, dict[str, Demand]],
    timings: Timings,
    device: torch.device,
) -> None:
    """Time by kind of operator, beside what the kind would take at the machine's ceilings."""
    for form, work in works.items():
        profile = profile_kinds(work, device)
        total, demand = sum(profile.values()), demands.get(form, {})
        rows = [
            [
                kind,
                1e3 * profile.get(kind, 0.0),
                f"{profile.get(kind, 0.0) / total:.1%}",
                1e3 * demand[kind].seconds if kind in demand else None,
                demand[kind].calls if kind in demand else None,
            ]
            for kind in sorted(KINDS, key=lambda kind: -profile.get(kind, 0.0))
            if kind in profile or kind in demand
        ]
        headers = ["kind of operator", "ms", "share", "ms at the ceilings", "calls"]
        report.tables.append(Table(headers, rows, f"Profile of the {form} form at batch {batch}"))
        report.figures[str(batch)].setdefault("profile", {})[form] = profile
        if demand:
            at_ceilings = sum(part.seconds for part in demand.values())
            report.verdict.append(
                f"Batch {batch}: at its ceilings the machine would run the {form} form's operators, unfused and "
                f"without caches, in {at_ceilings / timings.median(form):.0%} of the time they take."
            )


def _measure_phases(
    report: Report,
    config: Config,
    workload: Workload,
    batch: int,
    options: argparse.Namespace,
) -> None:
    """Phases in turn with the whole step, as shares of it, and what spectral normalisation adds to one."""
    works: dict[str, Work] = {STEP: workload, **phases(config, workload)}
    timings = interleaved(works, options.rounds, device=options.device)
    rows = [[name, 1e3 * timings.median(name), f"{timings.ratio(name, STEP):.1%}"] for name in works]
    report.tables.append(Table(["phase", "ms", "of the step"], rows, f"Phases at batch {batch}, measured apart"))
    report.figures[str(batch)]["phases"] = timings.to_json()
    networks = workload.step.networks.values()
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, SpectralWeight)]
    layers = [layer for layer in layers if not layer.folded]
    if layers:
        # A difference of a few percent: in three times the rounds, and on the same networks, for two copies of one
        # differ by half a percent of a step, by where their memory lies.
        pair: dict[str, Work] = {STEP: workload, WITHOUT_NORM: partial(run_unnormalised, workload, layers)}
        timings = interleaved(pair, 3 * options.rounds, warmup=2, device=options.device)
        report.figures[str(batch)]["spectral norm"] = timings.to_json()
        share = 1 - timings.ratio(WITHOUT_NORM, STEP)
        report.verdict.append(f"Batch {batch}: spectral normalisation is {share:.1%} of the step.")


def run_unnormalised(workload: Workload, layers: list[SpectralWeight]) -> None:
    """A step whose layers take their weights as they are."""
    for layer in layers:
        layer.folded = True
    workload()
    for layer in layers:
        layer.folded = False


def _length_of_run(config: Config, figures: dict[str, Any], gpus: list[int]) -> str:
    """Hours to see ``total_kimg`` at the best speed measured."""
    speeds = {
        (int(batch), form): int(batch) / seconds
        for batch, values in figures.items()
        if batch != "ceilings"
        for form, seconds in values["timings"]["median"].items()
    }
    (batch, form), speed = max(speeds.items(), key=lambda item: item[1])
    images = config.train.total_kimg * 1000
    hours = " and ".join(f"{images / speed / 3600 / count:,.1f} h on {count}" for count in gpus)
    return (
        f"At {speed:,.1f} images/s ({form}, batch {batch}), the {images:,.0f} images of {config.name} take {hours} "
        f"such device(s), if processes scale perfectly and data, sheets and evaluation cost nothing."
    )
