"""Make an average of G of any length after training: `hamgan average`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hamgan.errors import ConfigError
from hamgan.sampling.places import check_place

LARGEST_ERROR = 0.05
"""Relative error of an average's profile beyond which a warning is printed."""


def average_parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of all options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Average G over another length of its training; needs train.power_averages in the run (EDM2).",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder")
    add(
        "--length",
        required=True,
        type=float,
        help="length of the average as a share of the time trained (a standard deviation), such as 0.08",
    )
    add("--kimg", type=float, help="end of the average, one of those in RUN/averages (default: the newest)")
    add("--output", required=True, type=Path, help="generator.safetensors to write")
    add("--force", action="store_true", help="overwrite an existing output")
    add("--device", help="device that recomputes batch-norm statistics (default: a GPU if there is one)")
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan average") -> None:
    """Write the averaged generator; raises ConfigError or CheckpointError if that is not possible."""
    options = average_parser(prog).parse_args(arguments)
    check_place(options.checkpoint)
    output: Path = options.output
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output is {output}; a generator is written as .safetensors")
    if output.exists() and not options.force:
        raise ConfigError(f"{output} exists already; choose another --output, or replace it by --force")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder {output.parent} for --output")

    from hamgan.sampling.averages import average_run, write_average

    images = None if options.kimg is None else round(1000 * options.kimg)
    generator = average_run(Path(options.checkpoint), options.length, images, options.device)
    write_average(output, generator)
    error = generator.header["average_error"]
    if error > LARGEST_ERROR:
        print(
            f"warning: the average is {error:.0%} off one of this length; take a length nearer to the stored ones, or "
            "store averages more often: --checkpoint.averages_every_kimg, --checkpoint.every_kimg"
        )
    print(f"wrote {output}: G averaged over {options.length:g} of {generator.kimg:g} kimg, batch norm recomputed")
