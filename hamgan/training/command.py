"""Read the command line of `hamgan train`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from hamgan.config import config_parser, parse_config, preset_names
from hamgan.config.help import asked_topic, help_text
from hamgan.config.presets import check_run_to_resume
from hamgan.data.finding.locations import check_location
from hamgan.errors import ConfigError


def train_parser(prog: str) -> ArgumentParser:
    """Return a parser of all keys of a configuration and of the options of the command itself."""
    parser = config_parser(prog=prog, description="Train a configuration; the same command again resumes.")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="do not train: print networks, memory, FLOPs and the time to finish, and draw the first batch",
    )
    parser.add_argument(
        "--override-resume",
        action="append",
        default=[],
        metavar="KEY,...",
        help="resume although these keys (or sections) of the configuration have changed",
    )
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan train") -> None:
    """Train the configuration given by the arguments; raises ConfigError for one that cannot be trained."""
    arguments, parser = list(arguments), train_parser(prog)
    topic = asked_topic(arguments)
    if topic is not None:
        print(help_text(parser, topic))
        return
    config, options = parse_config(arguments, parser)
    if not any(argument.partition("=")[0] == "--config" for argument in arguments):
        raise ConfigError(_ask_for_configuration(config.folder, prog))
    check_run_to_resume(arguments, config.folder)
    check_location(config.data.source)
    if config.eval.reference is not None and config.eval.every_kimg > 0:
        check_location(config.eval.reference)
    override = [key for given in options.override_resume for key in given.split(",")]
    if options.dry_run:
        from hamgan.training.dry_run import dry_run

        dry_run(config, override)
        return
    from hamgan.distributed.group import joined_processes, rank
    from hamgan.training.loop import train

    with joined_processes():
        train(config, override)
        if rank() == 0:
            folder = shlex.quote(str(config.folder))
            print(f"trained; go on with hamgan sample --checkpoint {folder} --output grid.png")


def _ask_for_configuration(folder: Path, prog: str) -> str:
    stored = folder / "config.yaml"
    resume = f"; to resume {folder}: {prog} --config {stored}" if stored.is_file() else ""
    return f"--config is missing: name a YAML file or one of {', '.join(preset_names())}{resume}"
