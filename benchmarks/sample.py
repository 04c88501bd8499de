"""Drawing images: the form that samples against the forms that train, and the whole script against the bare forward.

plain: the generator as other trainers keep it (parametrised spectral norm, up-sampling and convolutions apart,
contiguous maps) in evaluation mode. trained: ours in evaluation mode. folded: weights divided by their singular values
once. drawing: the form that `load_generator` draws with. One set of weights.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.configuration import add_config_arguments, read_config
from benchmarks.plain import plain_form
from benchmarks.report import Report, Table
from benchmarks.timing import Timings, Work, count_flops, interleaved, peak_memory
from hamgan.errors import ConfigError
from hamgan.networks import Generator, build_networks
from hamgan.networks.inference import InferenceGenerator, fold_spectral_norm
from hamgan.sampling import LoadedGenerator, plan_samples
from hamgan.sampling.plan import inputs
from hamgan.sampling.writing import BATCH_SIZE, Output, write_plan

PLAIN, TRAINED, DRAWING = "plain", "trained", "drawing"
BARE, WHOLE = "bare forward", "sample.py to PNGs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is drawn and how much of it."""
    add_config_arguments(parser)
    parser.add_argument("--batch", type=int, default=8, help="images per forward (default: 8)")
    parser.add_argument("--images", type=int, default=128, help="images that the whole script draws (default: 128)")


def run(options: argparse.Namespace) -> Report:
    """Time, memory and differences of the forms, then the script."""
    for name in ("batch", "images"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} is {getattr(options, name)}; it must be 1 or more")
    config = read_config(options.config, options.set)
    network = build_networks(config)[0].to(options.device).eval().requires_grad_(False)
    forms = make_forms(network)
    generator = LoadedGenerator(fold_spectral_norm(network), config)
    report = Report(
        f"Drawing from {config.name}",
        f"{config.resolution} px, width {config.generator.channels}, float32, {torch.get_num_threads()} thread(s); "
        f"medians of {options.rounds} rounds in turn.",
    )
    _measure_forms(report, forms, generator, options)
    _measure_script(report, generator, options)
    return report


def make_forms(network: Generator) -> dict[str, nn.Module]:
    """The generator in every form; ``network``, in evaluation mode, stays as it is."""
    folded = fold_spectral_norm(copy.deepcopy(network))
    return {
        PLAIN: plain_form(network).eval(),
        TRAINED: copy.deepcopy(network),
        "folded": folded,
        DRAWING: InferenceGenerator(folded),
    }


def _measure_forms(
    report: Report, forms: dict[str, nn.Module], generator: LoadedGenerator, options: argparse.Namespace
) -> None:
    plan = plan_samples([0], range(options.batch), [1.0], generator.titles)
    z, labels = (part.to(options.device) for part in inputs(plan.images, generator))

    def work(form: nn.Module) -> Work:
        return lambda: form(z, labels)

    with torch.no_grad():
        images: dict[str, Tensor] = {name: form(z, labels) for name, form in forms.items()}
        works = {name: work(form) for name, form in forms.items()}
        timings = interleaved(works, options.rounds, device=options.device)
        memory = {name: peak_memory(one, options.device) for name, one in works.items()}
        flops = {name: count_flops(one) for name, one in works.items()}
    rows = [
        [
            name,
            1e3 * timings.median(name),
            options.batch / timings.median(name),
            timings.ratio(PLAIN, name),
            float((images[name] - images[PLAIN]).abs().max()),
            memory[name] / 2**20,
            flops[name] / options.batch / 1e9,
            f"{timings.spread(name):.0%}",
        ]
        for name in forms
    ]
    headers = ["form", "ms", "images/s", "times plain", "largest difference", "peak MiB", "GFLOP / image", "spread"]
    report.tables.append(Table(headers, rows, f"Forward of {options.batch} images, values from -1 to 1"))
    report.figures["forms"] = {"timings": timings.to_json(), "peak_bytes": memory, "flops": flops}
    report.verdict.append(_sentence(timings))


def _sentence(timings: Timings) -> str:
    trained = f", {timings.ratio(TRAINED, DRAWING):.2f} times those of the form that trains"
    return f"The drawing form gives {timings.ratio(PLAIN, DRAWING):.2f} times the images/s of the plain form{trained}."


def _measure_script(report: Report, generator: LoadedGenerator, options: argparse.Namespace) -> None:
    """Latents, forwards, conversion, PNG files: against nothing but the forwards of the same batches."""
    plan = plan_samples([0], range(options.images), [1.0], generator.titles)
    z, labels = (part.to(options.device) for part in inputs(plan.images, generator))

    def bare() -> None:
        for part in zip(z.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
            generator.inference(*part)

    with tempfile.TemporaryDirectory() as folder:
        number = iter(range(10**9))

        def whole() -> None:
            write_plan(generator, plan, Output(Path(folder) / str(next(number))))

        timings = interleaved({BARE: bare, WHOLE: whole}, options.rounds, device=options.device, clock="wall")
    share = timings.ratio(BARE, WHOLE)
    rows = [[name, timings.median(name), options.images / timings.median(name)] for name in (BARE, WHOLE)]
    report.tables.append(
        Table(["what", "s", "images/s"], rows, f"{options.images} images in batches of {BATCH_SIZE}, wall time")
    )
    report.figures["script"] = timings.to_json()
    report.verdict.append(f"The whole script reaches {share:.0%} of the bare forward's throughput.")
