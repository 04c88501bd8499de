"""Read the command line of `hamgan convert`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """Turn weights of BigGAN-PyTorch or the official HamGAN into a file to sample from, or a run to resume.

  hamgan convert G_ema.pth --output generator.safetensors
  hamgan convert G.pth D.pth --ema G_ema.pth --output-run runs/biggan --set data.source=data/imagenet128
  hamgan convert hamgan.npz --output generator.safetensors --class-names imagenet_classes.txt
"""


def main(arguments: Sequence[str], prog: str = "hamgan convert") -> None:
    """Convert as the arguments say and print the report; nothing is written before all checks."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=formatter)
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help=".pth or .safetensors of BigGAN-PyTorch; .npz of TensorFlow variables, or a checkpoint's prefix",
    )
    parser.add_argument("--ema", type=Path, help="the averaged generator (G_ema.pth); it is what --output holds")
    parser.add_argument("--output", type=Path, help="the generator file to write, for sample.py and evaluate.py")
    parser.add_argument("--output-run", type=Path, help="run folder to write, for train.py to resume; takes G and D")
    parser.add_argument("--class-names", type=Path, help="text file with a name per line, or a JSON list")
    parser.add_argument(
        "--kimg", type=float, default=0.0, help="thousands of images the weights have seen (default: 0)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="configuration that weights do not tell"
    )
    parser.add_argument(
        "--allow-leftovers", action="store_true", help="convert what fits; unknown and missing tensors are reported"
    )
    options = parser.parse_args(arguments)
    if options.output is None and options.output_run is None:
        parser.error("name --output FILE, --output-run FOLDER or both")

    from hamgan.convert.conversion import convert

    convert(options)
