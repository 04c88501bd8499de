"""Train a configuration; the same command again resumes. Run by `python` or by `accelerate launch`."""

import sys

from hamgan.command_line import run
from hamgan.config import config_parser, parse_config


def main() -> None:
    parser = config_parser(prog="train.py", description=__doc__)
    config, _ = parse_config(sys.argv[1:], parser)
    from hamgan.training import train

    train(config)


if __name__ == "__main__":
    run(main)
