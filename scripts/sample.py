"""Draw images from a trained generator: a grid (--out grid.png) or a folder of PNGs (--out FOLDER)."""

import argparse
from pathlib import Path

from hamgan.command_line import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="sample.py", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="run folder, checkpoint folder or generator.safetensors")
    parser.add_argument("--classes", nargs="+", help="indices, ranges and names: 207,980-985 volcano (default: all)")
    parser.add_argument("--seeds", default="0-7", help="one image per class and seed, e.g. 0-63,100 (default: 0-7)")
    parser.add_argument("--truncation", type=float, default=1.0, help="resample |z| above this; 1: none (default)")
    parser.add_argument("--out", required=True, type=Path, help="grid.png, or a folder that does not exist yet")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the grid's images by whole pixels (default: 1)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    options = parser.parse_args()

    from hamgan.sampling import default_device, load_generator, parse_classes, parse_numbers, sample_to

    generator = load_generator(options.checkpoint, device=options.device or default_device())
    classes = parse_classes(options.classes or [f"0-{generator.num_classes - 1}"], generator)
    seeds = parse_numbers(options.seeds, "seed range")
    sample_to(generator, classes, seeds, options.truncation, options.out, options.scale)
    print(f"wrote {len(classes) * len(seeds)} images to {options.out}")


if __name__ == "__main__":
    run(main)
