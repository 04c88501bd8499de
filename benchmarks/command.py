"""The command line of python -m benchmarks: common options, then the subcommand's module."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch

SUBCOMMANDS = {
    "train": "the training step: fast, plain and compiled form, where its time goes, time to finish a run",
    "block": "the context block: Hamburger, its straightforward form, hamburger-pytorch, self-attention",
    "sample": "drawing images from a generator",
    "evaluate": "features and metrics against the packages that others use",
    "data": "decoding, preparation and the input pipeline",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the named subcommand, print its report and write it where ``--json`` says; ConfigError for bad usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Names only: importing a module takes seconds, and each may land on its own.
    known = {name: text for name, text in SUBCOMMANDS.items() if find_spec(f"benchmarks.{name}")}
    if not given or given[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:10}{text}" for name, text in known.items())
        print(f"usage: python -m benchmarks SUBCOMMAND [--help]\n\nMeasure speed and memory.\n\n{lines}")
        return
    name = given.pop(0)
    if name not in known:
        raise ConfigError(f"unknown subcommand {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
    _run(name, given)


def _run(name: str, arguments: list[str]) -> None:
    module = import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which all alternatives run once (default: 7)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    module.add_arguments(parser)
    options = parser.parse_args(arguments)
    _prepare(options)
    report = module.run(options)
    print(report.markdown())
    if options.json:
        report.save(options.json)


def _prepare(options: argparse.Namespace) -> None:
    """Check the common options and apply them, before anything long runs."""
    import torch

    for name in ("rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; it must be 1 or more")
    if options.json and not options.json.absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {options.json.absolute().parent}")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.device = _device(options.device)


def _device(name: str | None) -> "torch.device":
    import torch

    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ConfigError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device
