"""Read the command line of `hamgan invert`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError, did_you_mean, refuse_renamed
from hamgan.sampling.places import check_place

if TYPE_CHECKING:
    from torch import Tensor

    from hamgan.inversion.optimise import Inversion
    from hamgan.inversion.report import Result
    from hamgan.sampling import LoadedGenerator


def invert_parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of all options."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Find the latent and the class whose image is nearest to a picture."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, checkpoint folder, generator.safetensors, or owner/name on a hub")
    add("--images", required=True, nargs="+", type=Path, metavar="FILE", help="pictures of any size and kind")
    add("--output", required=True, type=Path, help="sheet to write, .png; latents and classes are written next to it")
    add("--classes", nargs="+", help="classes to search: indices, ranges, names, synsets (default: all)")
    add("--steps", type=int, default=300, help="steps of the optimisation (default: 300)")
    add(
        "--restarts",
        type=int,
        default=8,
        help="optimisations per picture, from the nearest random samples (default: 8)",
    )
    add("--samples", type=int, default=64, help="random samples per class; the best is the baseline (default: 64)")
    add("--pixels-only", action="store_true", help="compare pixels only, not the features of EfficientNet-Lite0")
    add("--force", action="store_true", help="overwrite existing outputs")
    add("--seed", type=int, default=0, help="first seed of the random samples (default: 0)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan invert") -> None:
    """Invert the given pictures; raises ConfigError for bad usage."""
    refuse_renamed(arguments, {"--out": "--output"})
    options = invert_parser(prog).parse_args(arguments)
    check_place(options.checkpoint)
    check_files(options.images, options.output, options.force)

    from hamgan.inversion.optimise import invert
    from hamgan.inversion.report import describe, save_results
    from hamgan.sampling import default_device, load_generator, parse_classes

    generator = load_generator(options.checkpoint, options.device or default_device())
    classes = parse_classes(options.classes, generator) if options.classes else None
    targets = read_pictures(options.images, generator.config.resolution)
    found = invert(
        generator,
        targets,
        classes,
        steps=options.steps,
        restarts=options.restarts,
        samples=options.samples,
        pixels_only=options.pixels_only,
        seed=options.seed,
        progress=sys.stderr.isatty(),
    )
    results = measure(options.images, targets, found, generator)
    print("\n".join(describe(results, options.samples)))
    print(f"wrote {options.output} and {save_results(results, generator.source, options.samples, options.output)}")


def measure(
    files: Sequence[Path], targets: "Tensor", found: "Sequence[Inversion]", generator: "LoadedGenerator"
) -> "list[Result]":
    """Return the figures of what was found, and of the random samples beside it."""
    import torch

    from hamgan.evaluation import load_extractor
    from hamgan.inversion.quality import measure_quality
    from hamgan.inversion.report import Result

    extractor = load_extractor("efficientnet-lite0", device=generator.device)
    quality = measure_quality(torch.stack([item.image for item in found]), targets, extractor)
    baseline = measure_quality(torch.stack([item.baseline for item in found]), targets, extractor)
    names = [generator.titles[item.label] for item in found]
    return [Result(*row) for row in zip(files, targets, found, names, quality, baseline, strict=True)]


def check_files(images: Sequence[Path], out: Path, force: bool = False) -> None:
    """Raise ConfigError for pictures that are not there and for outputs that are, before anything is loaded.

    With ``force`` outputs may be there.
    """
    from hamgan.sampling.outputs import check_output

    if out.suffix.lower() != ".png":
        raise ConfigError(f"--output {out} must end in .png: it is a sheet")
    check_output(out, force)
    check_output(out.with_suffix(".safetensors"), force)
    for path in images:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name pictures, e.g. {path}/*.png")
        if not path.is_file():
            near = [str(item) for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ConfigError(f"there is no picture at {path}{did_you_mean(str(path), near)}")


def read_pictures(files: Sequence[Path], resolution: int) -> "Tensor":
    """Read the largest central square of every picture, resized as data sets are: uint8 [N, 3, R, R]."""
    import torch

    from hamgan.data.decoding.decode import Preparation, decode
    from hamgan.errors import PictureError

    pictures = []
    for path in files:
        try:
            pictures.append(torch.from_numpy(decode(path.read_bytes(), Preparation(resolution)).copy()))
        except PictureError as error:
            raise ConfigError(f"{path} {error}") from error
    return torch.stack(pictures).permute(0, 3, 1, 2)
