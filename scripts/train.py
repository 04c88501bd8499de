"""Train a configuration; the same command again resumes. Run by `python` or by `accelerate launch`."""

import sys

from hamgan.command_line import run
from hamgan.config import config_parser, parse_config


def main() -> None:
    parser = config_parser(prog="train.py", description=__doc__)
    parser.add_argument(
        "--override-resume",
        action="append",
        default=[],
        metavar="KEY",
        help="resume although this key (or section) of the configuration has changed; may be given several times",
    )
    config, options = parse_config(sys.argv[1:], parser)
    from hamgan.training import train

    train(config, options.override_resume)


if __name__ == "__main__":
    run(main)
