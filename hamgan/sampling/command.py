"""Read the command line of `hamgan sample`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError, refuse_renamed
from hamgan.sampling.outputs import check_output
from hamgan.sampling.places import check_place

if TYPE_CHECKING:
    from hamgan.sampling.generator import LoadedGenerator
    from hamgan.sampling.plan import Between, Plan


def sample_parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of all options."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Draw images from a trained generator; also by `accelerate launch`."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, checkpoint folder, generator.safetensors, or owner/name on a hub")
    add("--output", required=True, type=Path, help="grid.png, film.gif, film.mp4, images.npz (as ADM's), or a folder")
    add("--classes", nargs="+", help="names, synsets, indices, ranges: volcano 207,980-985 (default: all)")
    add("--seeds", help="one image per class and seed, e.g. 0-63,100 (default: 0-7)")
    add("--per-class", type=int, metavar="N", help="every class gets N seeds of its own from --seeds")
    add("--truncation", default="1", help="resample |z| above this; 1: none (default); 0.3,0.5,1 compares several")
    add("--interpolate", choices=("seeds", "classes"), help="interpolate from each seed (class) to the next one")
    add("--frames", type=int, help="images per interpolation step (default: 8; animations: 40)")
    add("--fps", type=int, default=20, help="frames per second of an animation (default: 20)")
    add("--sheets", action="store_true", help="write a labelled sheet per class into the folder")
    add("--no-ema", action="store_true", help="draw from the trained generator itself, not from its average")
    add(
        "--batch-norm",
        choices=("running", "standing", "ema"),
        help="batch-norm statistics (default: those stored with the generator)",
    )
    add(
        "--batch-size",
        type=int,
        default=64,
        help="images per forward pass on a GPU; does not change the images (default: 64)",
    )
    add(
        "--scale",
        type=int,
        help="integer factor that enlarges sheets and animations (default: chosen by image size; 1: none)",
    )
    add("--force", action="store_true", help="overwrite an existing output")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan sample") -> None:
    """Draw images as the arguments ask; raises ConfigError for bad usage."""
    refuse_renamed(arguments, {"--out": "--output"})
    options = sample_parser(prog).parse_args(arguments)
    check_place(options.checkpoint)
    check_output(options.output, options.force)

    from hamgan.distributed.failure_watch import FailureWatch
    from hamgan.distributed.group import joined_processes

    if options.batch_size < 1:
        raise ConfigError(f"batch-size is {options.batch_size}; it must be 1 or more")
    with joined_processes() as joined, FailureWatch():
        _sample(options, joined)


def _sample(options: argparse.Namespace, joined: str | None) -> None:
    """Draw the share of this process, on the device ``joined`` where there are several."""
    from hamgan.distributed.group import Processes
    from hamgan.sampling.classes import describe_classes, parse_classes
    from hamgan.sampling.generator import default_device
    from hamgan.sampling.loading import load_generator
    from hamgan.sampling.writing import Output, check_request, describe_written, write_plan

    device = options.device or joined or default_device()
    standing = options.batch_norm == "standing"
    stored = None if standing else options.batch_norm
    generator = load_generator(options.checkpoint, device, average=not options.no_ema, batch_norm=stored)
    classes = parse_classes(options.classes, generator) if options.classes else list(range(generator.num_classes))
    plan = _plan(options, generator, classes)
    output = Output(options.output, options.scale, options.fps, options.sheets, options.force)
    check_request(plan, output, generator.config.resolution)
    if standing:
        generator = generator.with_standing_statistics()
    write_plan(generator, plan, output, options.batch_size)
    if Processes.current().is_main:
        if options.classes:
            print(f"classes: {describe_classes(classes, generator.titles)}")
        print(describe_written(plan, output, generator.config.resolution))


def _plan(options: argparse.Namespace, generator: "LoadedGenerator", classes: list[int]) -> "Plan":
    from hamgan.sampling.classes import numbers_in
    from hamgan.sampling.plan import plan_interpolation, plan_samples

    count = options.per_class * len(classes) if options.per_class and options.per_class > 0 else 8
    seeds = list(numbers_in(options.seeds, "seed range")) if options.seeds is not None else list(range(count))
    try:
        truncations = [float(part) for part in options.truncation.split(",")]
    except ValueError as error:
        raise ConfigError(f"truncation {options.truncation!r}: give a number, or several as 0.3,0.5,1") from error
    film = options.output.suffix.lower() in (".gif", ".mp4")
    between: Between | None = options.interpolate or ("seeds" if film else None)
    if between is None:
        if options.frames is not None:
            raise ConfigError("--frames is for the way between seeds or classes: add --interpolate, or write a film")
        return plan_samples(classes, seeds, truncations, generator.titles, options.per_class)
    unfit = {"several truncations": len(truncations) > 1, "--per-class": options.per_class, "--sheets": options.sheets}
    for name in (name for name, given in unfit.items() if given):
        raise ConfigError(f"{name} cannot be had on the way between {between}; leave one of them out")
    frames = options.frames if options.frames is not None else (40 if film else 8)
    return plan_interpolation(between, classes, seeds, truncations[0], generator.titles, frames, closed=film)
