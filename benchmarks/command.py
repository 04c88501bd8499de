"""Read the command line of ``python -m benchmarks`` and run the subcommand that it names. Imports no torch before."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hamgan.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch

VARIANTS = Path(__file__).parent / "recipe" / "variants.yaml"
SUBCOMMANDS = {
    "train": "measure the training step: fast, plain and compiled, a profile, and the time to finish a run",
    "block": "measure the context block: Hamburger, its straightforward form, hamburger-pytorch, self-attention",
    "sample": "measure drawing images from a generator",
    "evaluate": "measure features and metrics, and compare them with other packages",
    "equality": "compare every metric with the package that people quote, on one and two processes",
    "data": "measure feeding batches from a store and preparing JPEGs, and compare with the usual ways",
    "recipe": "compare recipes: train variants at equal time or images with several seeds, and measure them",
    "segment": "compare a segmenter with its Hamburger, with one update step in it, and without it, at equal time",
    "gpu": "check a GPU: parity, speed, profile, training, evaluation, each within some minutes",
}
DETAILS = {
    "train": """
fast: as in training. plain: parametrised spectral norm, no merged convolutions, contiguous maps, eager, on the same
weights, as in BigGAN-PyTorch. compiled: fast, with train.compile. A step is one update of D, one of
G and one of G's average, on images made of noise.""",
    "block": """
Forward and backward on the same feature map: time, memory and FLOPs by number of tokens. Compares the Hamburger with
the paper's PyTorch code, hamburger-pytorch (PyPI, if installed; it learns one set of bases and coefficients) and
self-attention by scaled_dot_product_attention. Blocks include their 1x1 convolutions, without spectral norm.""",
    "sample": """
plain: the generator as in other trainers (parametrised spectral norm, separate up-sampling and convolutions, contiguous
maps) in evaluation mode. trained: this package's in evaluation mode. folded: weights divided by their singular values
once. drawing: the form that load_generator uses. All have the same weights. Then `hamgan sample` as a whole.""",
    "evaluate": """
Uses the same images and weights file for torch-fidelity, torchmetrics and pytorch-fid: held-out crops of scikit-image's
photographs against train crops, at 128 px. If there are no Inception weights, and no network to download them, random
ones in the same file format replace them: times and agreement do not depend on the values, but the FID means nothing
outside the table. Then measures the networks of the other metrics with random weights, each next to the network and
resize whose numbers it equals, FID's matrix part, and distances to neighbours next to prdc. --docs writes the tables
into docs/benchmarks.md.""",
    "equality": """
Uses real images and random weights in the published formats, and computes features and metrics by this package and by
the others, each with its version. --docs writes the table into docs/benchmarks.md.""",
    "data": """
Measures the loader on cached stores of a hundredth, a tenth and all of --images images, and preparation on JPEGs of
ImageNet's size, against PIL + torchvision, and h5py if it is installed. One thread.""",
    "recipe": """
Each VARIANT is a name in benchmarks/recipe/variants.yaml, or in a file of the same form, which lists the keys in which
it differs from --config. The others are compared with the first one. Steps are timed in turn, so that equal time means
equal work even on a busy machine. Runs, tables (recipe.md, recipe.json) and a picture of all variants side by side
(recipe.png) are written to --output. The same command continues after an interruption, also with more seeds and more
variants.""",
    "segment": """
Every variant trains with every seed for as long as the first takes for --kimg, and is measured on the held-out split by
the eval section of the configuration. Steps are timed in turn beforehand. Runs are written to --output. The same
command continues after an interruption, also with more seeds.""",
    "gpu": """
parity: values and gradients in fp32, TF32, bf16 and fp16 against float64 on the CPU; exits with 1 for errors beyond a
bound. speed: training steps of several batch sizes, eager, compiled and plain, with memory and waits. profile: kernels
by kind. train: the photographs at 128 px, killed and resumed once; a second call continues. evaluate: TF32 off and on.
report: put the results of all parts into docs/gpu.md. Also runs on a CPU, for tests.""",
}


class _Parser(argparse.ArgumentParser):
    """Raise ConfigError for bad usage, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}")


def positive(text: str) -> int:
    """Read a whole number of 1 or more, as argparse wants its ``type``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def positives(text: str) -> list[int]:
    """Read whole numbers of 1 or more with commas between; each counts once."""
    return list(dict.fromkeys(positive(part) for part in text.split(",")))


def seeds(text: str) -> list[int]:
    """Read whole numbers of 0 or more with commas between; each counts once."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} are not whole numbers with commas between")
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = _Parser(prog="python -m benchmarks", description="Measure speed and memory.")
    subparsers = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    commands: dict[str, argparse.ArgumentParser] = {}
    for name, summary in SUBCOMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}.\n{DETAILS[name]}"
        commands[name] = subparsers.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add = commands[name].add_argument
        if name == "gpu":
            add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
            continue
        add("--rounds", type=positive, default=7, help="rounds in which all alternatives run once (default: 7)")
        add("--threads", type=positive, help="CPU threads (default: torch's choice)")
        add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
        add("--json", type=Path, metavar="FILE", help="write all figures to this file")
    for name in ("train", "sample"):
        add = commands[name].add_argument
        add("--config", type=Path, help="YAML file (default: the default configuration, 1000 classes)")
        add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the configuration")
    _add_train_options(commands["train"])
    _add_other_options(commands)
    _add_gpu_options(commands["gpu"])
    _add_recipe_options(commands["recipe"])
    _add_segment_options(commands["segment"])
    return parser


def _add_gpu_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(json=None, threads=None)
    add = parser.add_argument
    add("part", choices=("parity", "speed", "profile", "train", "evaluate", "all", "report"), help="what to run")
    add("--output", type=Path, default=Path("gpu"), metavar="FOLDER", help="folder of all results (default: gpu)")
    add("--minutes", type=float, default=8.0, help="minutes after which this call starts nothing new (default: 8)")
    add("--configs", nargs="+", metavar="NAME", help="configurations other than the part's own")
    add("--batches", type=positives, help="images per step, with commas between (default: the part's own)")
    add(
        "--forms",
        default="fast,plain,compiled",
        help="forms of the step in speed and profile (default: fast,plain,compiled)",
    )
    add("--samples", type=positive, default=5000, help="samples, and reference images, of evaluate (default: 5000)")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="values of the configurations")
    add("--docs", type=Path, default=Path("docs/gpu.md"), metavar="FILE", help="page of report (default: docs/gpu.md)")


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("variants", nargs="+", metavar="VARIANT", help="variants to compare; the first one is the baseline")
    add("--config", default="fashion", help="configuration of all variants, name or YAML file (default: fashion)")
    add("--variants-file", type=Path, default=VARIANTS, metavar="FILE", help="YAML file of other variants")
    add("--seeds", type=seeds, default=[0, 1, 2], help="with commas between (default: 0,1,2)")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="time of each training, without evaluation and sheets")
    length.add_argument("--kimg", type=float, help="thousands of images that the first variant sees")
    add("--equal", choices=("time", "images"), default="time", help="what is equal for all variants (default: time)")
    add("--output", type=Path, default=Path("recipe"), metavar="FOLDER", help="folder of all results (default: recipe)")
    add("--docs", type=Path, metavar="FILE", help="page to put the table into, below `## Measured`")


def _add_segment_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", default="land", help="configuration of a segmenter, name or YAML file (default: land)")
    add("--seeds", type=seeds, default=[0, 1, 2], help="with commas between (default: 0,1,2)")
    add("--kimg", type=float, required=True, help="thousands of images that the first variant sees")
    add("--output", type=Path, default=Path("segment"), metavar="FOLDER", help="folder of all runs (default: segment)")
    add("--docs", type=Path, metavar="FILE", help="page to put the tables into, below `## Measured`")


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batches", type=positives, default="8", help="images per step, with commas between (default: 8)")
    add("--forms", default="fast,plain", help="forms of the step, among fast,plain,compiled (default: fast,plain)")
    add("--no-profile", action="store_true", help="leave out profiles and spectral norm's share")


def _add_other_options(commands: dict[str, argparse.ArgumentParser]) -> None:
    add = commands["block"].add_argument
    add("--sizes", type=positives, default="32,64", help="heights of the square feature map (default: 32,64)")
    add("--channels", type=positive, default=256, help="channels, also of the decomposition (default: 256)")
    add("--rank", type=positive, default=32, help="bases (default: 32)")
    add("--batch", type=positive, default=2, help="feature maps at a time (default: 2)")
    add("--bf16", action="store_true", help="under bf16 autocast, as on GPUs")
    add = commands["sample"].add_argument
    add("--batch", type=positive, default=8, help="images per forward (default: 8)")
    add("--images", type=positive, default=128, help="images that the whole command draws (default: 128)")
    add = commands["evaluate"].add_argument
    add("--weights", type=Path, help="Inception weights, torch-fidelity's pt_inception file")
    add("--images", type=positive, default=64, help="images a side for the table of numbers (default: 64)")
    add("--batch", type=positive, default=16, help="images per forward (default: 16)")
    add("--compile", action="store_true", help="measure the compiled extractor as well")
    commands["equality"].add_argument("--images", type=positive, default=256, help="images a side (default: 256)")
    for name in ("evaluate", "equality"):
        text = "page to write the tables into, such as docs/benchmarks.md"
        commands[name].add_argument("--docs", type=Path, metavar="FILE", help=text)
    add = commands["data"].add_argument
    add("--images", type=positive, default=100_000, help="images of the largest store (default: 100,000)")
    add("--folder", type=Path, help="disk for the stores (default: the system's temporary folder)")
    add("--jpegs", type=positive, default=48, help="JPEGs to prepare per round (default: 48)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the named subcommand, print its report and write it where ``--json`` says; ConfigError for bad usage."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if not given[0].startswith("-") and given[0] not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        raise ConfigError(f"unknown subcommand {given[0]!r}; there are {known}{did_you_mean(given[0], SUBCOMMANDS)}")
    options = make_parser().parse_args(given)
    if options.json and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {options.json.absolute().parent}")

    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    options.device = use_device(options.device)
    report = import_module(f"benchmarks.{options.name}").run(options)
    print(report.markdown())
    if options.json:
        report.save(options.json)


def use_device(name: str | None) -> "torch.device":
    """Make the device of ``--device`` torch's current one and return it; None: a GPU if there is one.

    Raises ConfigError for one that cannot be used.
    """
    import torch

    try:
        # The device of a tensor has an index where the name has none (`cuda`), and `set_device` needs one.
        wanted = name or torch.accelerator.current_accelerator(check_available=True) or "cpu"
        device = torch.empty(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
