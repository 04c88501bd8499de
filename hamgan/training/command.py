"""Read the command line of `hamgan train`."""

from collections.abc import Sequence

from hamgan.config import config_parser, parse_config


def main(arguments: Sequence[str], prog: str = "hamgan train") -> None:
    """Train the configuration that the arguments name; raise ConfigError (a sentence) for what cannot be."""
    parser = config_parser(prog=prog, description="Train a configuration; the same command again resumes.")
    parser.add_argument(
        "--override-resume",
        action="append",
        default=[],
        metavar="KEY",
        help="resume although this key (or section) of the configuration has changed; may be given several times",
    )
    config, options = parse_config(list(arguments), parser)
    from hamgan.distributed.group import joined_processes
    from hamgan.training.loop import train

    with joined_processes():
        train(config, options.override_resume)
