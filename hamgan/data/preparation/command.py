"""Read the command line of `hamgan prepare`: make, inspect or merge a store."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, get_args

from hamgan.data.decoding.choices import Crop, Filter
from hamgan.data.finding.locations import DATA_SETS, DOWNLOADED, check_location
from hamgan.errors import DataError, Stopped

if TYPE_CHECKING:
    from hamgan.data.store import Manifest

DESCRIPTION = """Prepare a store of images from folders, archives, CIFAR or the Hugging Face hub.

  hamgan prepare --source FOLDER|TAR|ZIP|'shards-{000..099}.tar'|hf:NAME|cifar10 --output STORE --resolution 128

hamgan prepare select (see its --help) chooses images of a store to train on.
Running the same command again after an interruption continues it.
"""


def main(arguments: Sequence[str], prog: str = "hamgan prepare") -> None:
    """Run the given command; raises ConfigError for bad usage and unusable input."""
    options = _parser(prog).parse_args(arguments)
    options.run(options)


def _parser(prog: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(title="further commands", prog=prog)
    _add_preparation_options(parser)

    inspect = commands.add_parser("inspect", help="describe or check a store", description="Describe or check a store.")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("store", type=Path, help="folder of the store")
    inspect.add_argument("--verify", action="store_true", help="compare all pixels with the manifest's hashes")
    inspect.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a contact sheet per class")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of text")

    text = "merge the parts of a store that --shard i/n made"
    joining = commands.add_parser("merge", help=text, description=f"{text.capitalize()}.")
    joining.set_defaults(run=_merge)
    joining.add_argument("store", type=Path, help="folder of the new store")
    joining.add_argument("parts", type=Path, nargs="+", help="folders of all parts")
    return parser


def _add_preparation_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_prepare)
    add = parser.add_argument
    add("--source", help="class folders, tar, zip, shards, hf:NAME, cifar10, cifar100")
    add("--output", type=Path, metavar="STORE", help="folder of the store")
    add("--resolution", type=int, default=128, help="image side in pixels (default: 128)")
    add(
        "--crop",
        choices=get_args(Crop),
        default="centre",
        help="centre: central square; paper: HamGAN's aliased bilinear; adm: box halvings, bicubic (default: centre)",
    )
    add(
        "--filter",
        choices=get_args(Filter),
        default="lanczos",
        help="antialiasing filter of --crop centre (default: lanczos)",
    )
    add("--val-source", help="source of the val split, if it is not in a val folder of --source")
    add("--val-fraction", type=float, default=0.0, help="share of the train split to hold out as val (default: 0)")
    add(
        "--labels",
        type=Path,
        help="file with the classes of the pictures: CSV, JSON, lines NAME CLASS, ImageNet's devkit",
    )
    add(
        "--background",
        type=_colour,
        default=(255, 255, 255),
        help="colour behind transparent pixels, such as white or #ff8000 (default: white)",
    )
    add("--min-side", type=int, default=16, help="skip pictures with a side of fewer pixels (default: 16)")
    add("--strict", action="store_true", help="stop at the first picture that cannot be used")
    add("--workers", type=int, help="number of processes (default: one per core)")
    add(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="i/n",
        help="prepare only part i of n, for `hamgan prepare merge`",
    )


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"`{text}` is not i/n with i from 1 to n")
    return int(part) - 1, int(parts)


def _colour(text: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is not a colour such as white or #ff8000") from error
    return red, green, blue


def _check_options(options: argparse.Namespace) -> None:
    for name, fits, allowed in (
        ("source", options.source is not None, "a folder, archive or name; see --help"),
        ("output", options.output is not None, "a folder; see --help"),
        ("resolution", 8 <= options.resolution <= 1024, "8 to 1024"),
        ("val-fraction", 0 <= options.val_fraction < 1, "0 to below 1"),
        ("min-side", options.min_side >= 1, "1 and above"),
        ("workers", options.workers is None or options.workers >= 1, "1 and above"),
    ):
        if not fits:
            value = getattr(options, name.replace("-", "_"))
            raise DataError(f"--{name} is {'missing' if value is None else value}; allowed: {allowed}")
    if options.source in DATA_SETS and options.source not in DOWNLOADED and not Path(options.source).exists():
        raise DataError(f"{options.source} needs no preparation: train on it with --data.source {options.source}")
    for place in (options.source, options.val_source):
        if place is not None:
            check_location(place, DOWNLOADED)


def _prepare(options: argparse.Namespace) -> None:
    _check_options(options)
    from hamgan.data.decoding.decode import Preparation
    from hamgan.data.decoding.kinds import describe_left_out
    from hamgan.data.finding.listing import list_pictures
    from hamgan.data.preparation.prepare import check_store_folder, prepare
    from hamgan.data.source import name_some

    preparation = Preparation(options.resolution, options.crop, options.filter, options.background, options.min_side)

    def make() -> "Manifest":
        check_store_folder(options.output)
        print(f"listing {options.source} ...", file=sys.stderr)
        listing = list_pictures(
            options.source,
            options.output / "work" / "unpacked",
            val_source=options.val_source,
            labels=options.labels,
            val_fraction=options.val_fraction,
        )
        found = ", ".join(f"{len(pictures):,} {split}" for split, pictures in listing.pictures.items() if pictures)
        for note in listing.notes:
            print(f"note: {note}", file=sys.stderr)
        names = name_some(listing.class_names, 12)
        print(f"found {found} pictures of {len(listing.class_names):,} classes: {names}", file=sys.stderr)
        if left_out := describe_left_out(listing.unclassed, listing.unread):
            print(f"left out: {left_out}", file=sys.stderr)
        return prepare(
            options.source,
            listing,
            options.output,
            preparation,
            strict=options.strict,
            workers=options.workers,
            shard=options.shard,
        )

    _make_and_report(options.output, make)


def _merge(options: argparse.Namespace) -> None:
    from hamgan.data.preparation.merge import merge

    _make_and_report(options.store, lambda: merge(options.store, options.parts))


def _inspect(options: argparse.Namespace) -> None:
    from hamgan.data.preparation.inspection import check_hashes, describe_store, summarise, write_sheets

    report = describe_store(options.store)
    print(json.dumps(report, indent=1) if options.json else summarise(report))
    if options.sheets:
        print(f"wrote {len(write_sheets(options.store, options.sheets))} contact sheets to {options.sheets}")
    if options.verify:
        check_hashes(options.store)
        print("every hash fits")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _make_and_report(store: Path, make: "Callable[[], Manifest]") -> None:
    """Make a store and print what it holds; raises Stopped on a signal."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        _print_contents(store, make())
    except KeyboardInterrupt:
        raise Stopped("run the same command again to continue") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_contents(store: Path, manifest: "Manifest") -> None:
    from hamgan.data.decoding.kinds import describe_left_out

    counts = ", ".join(f"{entry['count']} {split}" for split, entry in manifest["splits"].items())
    print(f"{store}: {counts} images of {len(manifest['class_names'])} classes")
    left_out = manifest["left_out"]
    if empty := left_out["class_folders"]:
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        print(f"left out: {len(empty)} classes without usable pictures: {names}")
    if others := describe_left_out(left_out["pictures_without_class"], left_out.get("unread", {})):
        print(f"left out: {others}")
    if manifest["skipped"]:
        print(f"skipped: {manifest['skipped']} pictures; {store / 'skipped.jsonl'} says why")
