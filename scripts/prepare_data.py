"""Make a store of training images from folders, archives, CIFAR or the Hugging Face hub; look into one; merge parts.

  prepare_data.py --source FOLDER|TAR|ZIP|'shards-{000..099}.tar'|hf:NAME|cifar10 --output STORE --resolution 128
  prepare_data.py inspect STORE [--verify] [--sheets FOLDER]
  prepare_data.py merge STORE PART [PART ...]

Running the same command again after an interruption continues it.
"""

import argparse
import json
import sys
from pathlib import Path

from hamgan.command_line import run


def shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"`{text}` is not i/n with i from 1 to n")
    return int(part) - 1, int(parts)


def colour(text: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is not a colour such as white or #ff8000") from error
    return red, green, blue


def preparation_parser() -> argparse.ArgumentParser:
    """The options of a preparation."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="prepare_data.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--source", required=True, help="class folders, tar, zip, shards, hf:NAME, cifar10, cifar100")
    parser.add_argument("--output", required=True, type=Path, help="folder of the store")
    parser.add_argument("--resolution", type=int, default=128, help="image side in pixels (default: 128)")
    parser.add_argument(
        "--crop",
        choices=["centre", "paper", "adm"],
        default="centre",
        help="centre: central square; paper: HamGAN's aliased bilinear; adm: box halvings, bicubic (default: centre)",
    )
    parser.add_argument(
        "--filter",
        choices=["lanczos", "bicubic", "bilinear", "box"],
        default="lanczos",
        help="antialiasing filter of --crop centre (default: lanczos)",
    )
    parser.add_argument("--val-source", help="where the val split is, if not in a val folder of --source")
    parser.add_argument(
        "--val-fraction", type=float, default=0.0, help="share of train to hold out as val (default: 0)"
    )
    parser.add_argument("--labels", type=Path, help="classes of pictures without class folders: ImageNet's devkit, CSV")
    parser.add_argument(
        "--background", type=colour, default=(255, 255, 255), help="behind transparency (default: white)"
    )
    parser.add_argument("--min-side", type=int, default=16, help="skip pictures with a shorter side (default: 16)")
    parser.add_argument("--strict", action="store_true", help="stop at the first picture that cannot be used")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--shard", type=shard, default=(0, 1), metavar="i/n", help="prepare part i of n, for `merge`")
    return parser


def prepare_main(arguments: list[str]) -> None:
    from hamgan.data.command import prepare_command

    prepare_command(**vars(preparation_parser().parse_args(arguments)))


def inspect_main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prepare_data.py inspect", description="Look into a store.")
    parser.add_argument("store", type=Path, help="folder of the store")
    parser.add_argument("--verify", action="store_true", help="compare every pixel with the manifest's hashes")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a contact sheet per class")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)

    from hamgan.data.inspection import check_hashes, describe_store, summary, write_sheets

    report = describe_store(options.store)
    print(json.dumps(report, indent=1) if options.json else summary(report))
    if options.sheets:
        print(f"wrote {len(write_sheets(options.store, options.sheets))} contact sheets to {options.sheets}")
    if options.verify:
        check_hashes(options.store)
        print("every hash fits")


def merge_main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prepare_data.py merge", description="Join parts made with --shard i/n.")
    parser.add_argument("store", type=Path, help="folder of the new store")
    parser.add_argument("parts", type=Path, nargs="+", help="folders of all the parts")
    options = parser.parse_args(arguments)

    from hamgan.data.command import merge_command

    merge_command(options.store, options.parts)


def main(given: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if given is None else given
    commands = {"inspect": inspect_main, "merge": merge_main}
    if arguments and arguments[0] in commands:
        commands[arguments[0]](arguments[1:])
    else:
        prepare_main(arguments)


if __name__ == "__main__":
    run(main)
