"""Read the command line of `hamgan convert`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hamgan.convert.places import check_file_exists, is_tensorflow_checkpoint

DESCRIPTION = """Convert weights of BigGAN-PyTorch or the official HamGAN into a generator file, or a run to resume.

  hamgan convert G_ema.pth --output generator.safetensors
  hamgan convert G.pth D.pth --ema G_ema.pth --output-run runs/biggan --set data.source=data/imagenet128
  hamgan convert hamgan.npz --output generator.safetensors --class-names imagenet_classes.txt
"""


def main(arguments: Sequence[str], prog: str = "hamgan convert") -> None:
    """Convert as the arguments ask and print the report; nothing is written before all checks."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=formatter)
    add = parser.add_argument
    files = ".pth or .safetensors of BigGAN-PyTorch; .npz of TensorFlow variables, or a TensorFlow checkpoint's prefix"
    add("files", nargs="+", type=Path, metavar="FILE", help=files)
    add("--ema", type=Path, help="the averaged generator (G_ema.pth), which --output then holds")
    add("--output", type=Path, help="generator file to write, for `hamgan sample` and `hamgan evaluate`")
    add("--output-run", type=Path, help="run folder to write, for `hamgan train` to resume; needs G and D")
    add("--class-names", type=Path, help="text file with a name per line, or a JSON list")
    add("--kimg", type=float, default=0.0, help="thousands of images that the weights were trained on (default: 0)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="configuration that the weights do not reveal, such as generator.hamburger.rank=32",
    )
    leftovers = "convert what fits and report unknown and missing tensors, instead of failing"
    add("--allow-leftovers", action="store_true", help=leftovers)
    options = parser.parse_args(arguments)
    if options.output is None and options.output_run is None:
        parser.error("name --output FILE, --output-run FOLDER or both")

    for file in [*options.files, *([options.ema] if options.ema else [])]:
        if not is_tensorflow_checkpoint(file):
            check_file_exists(file)
    from hamgan.convert.conversion import convert

    convert(
        options.files,
        average=options.ema,
        output=options.output,
        output_run=options.output_run,
        class_names=options.class_names,
        kimg=options.kimg,
        overrides=options.set,
        allow_leftovers=options.allow_leftovers,
    )
