"""Train configs/fashion.yaml, evaluate it against held-out images and draw a sheet; overrides as in train.py."""

import sys

from hamgan.cli import run


def main() -> None:
    from hamgan.config import parse_config

    config, _ = parse_config(["--config", "configs/fashion.yaml", *sys.argv[1:]])
    from hamgan.training.demo import demo

    demo(config)


if __name__ == "__main__":
    run(main)
