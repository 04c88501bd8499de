"""Format the help of commands whose options are a configuration: a few keys by default, all of them on request."""

import argparse
import json
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from hamgan.config.reading import GAN, ConfigReader, flat_config
from hamgan.config.suggestions import unknown_key
from hamgan.errors import ConfigError

FIRST = (
    "name",
    "data.source",
    "resolution",
    "train.total_kimg",
    "train.batch_size",
    "train.generator_lr",
    "train.discriminator_lr",
    "generator.context",
    "eval.every_kimg",
    "log.tracker",
)
"""Keys of the GAN's configuration that people change first."""


def asked_topic(arguments: list[str]) -> str | None:
    """Return the word after ``--help``, such as ``all`` or ``train.``; "" if there is none, None without ``--help``."""
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("-h", "--help"):
            after = next(iter(arguments[position + 1 :]), "")
            return value or ("" if after.startswith("-") else after)
    return None


def help_text(parser: ArgumentParser, topic: str, reader: ConfigReader[Any] = GAN, first: Sequence[str] = FIRST) -> str:
    """Return the help on a topic: "" (the keys in ``first``), ``all``, a section (``train.``) or a key.

    ``reader`` belongs to the parser's configuration. Raises ConfigError for another topic, with the nearest one.
    """
    config = reader.kind()
    known, keys = reader.known_keys(), list(flat_config(config))
    own = [action.dest for action in parser._actions if action.dest not in known]
    if topic == "":
        groups = {"options": own, "keys of the configuration that people change first": list(first)}
        return _format(parser, groups, _describe_sections(parser.prog, config, keys))
    if topic == "all":
        sections = [name for name in known if name not in keys]
        inside = {f"{name}.": [key for key in keys if key.rpartition(".")[0] == name] for name in sections}
        return _format(parser, {"options": own, "the run": [key for key in keys if "." not in key], **inside})
    name = topic.lstrip("-").rstrip(".")
    chosen = [key for key in keys if key == name or key.startswith(f"{name}.")]
    if not chosen:
        raise ConfigError(unknown_key(name, known, "--help"))
    return _format(parser, {topic: chosen})


def _describe_sections(prog: str, config: object, keys: list[str]) -> str:
    lines = []
    for name, section in vars(config).items():
        if hasattr(section, "__dataclass_fields__"):
            count = sum(key.startswith(f"{name}.") for key in keys)
            lines.append(f"  {name + '.':16}{count:3} keys  {(section.__doc__ or '').splitlines()[0]}")
    return "\n".join(
        [
            f"Every key of a configuration is an option. {prog} --help SECTION explains those of a section, such as",
            f"`{prog} --help train.`, and {prog} --help all explains every one:",
            "",
            *lines,
        ]
    )


def _format(parser: ArgumentParser, groups: dict[str, list[str]], epilog: str = "") -> str:
    """Format options as argparse does; jsonargparse would append a type to every text."""
    shown = argparse.ArgumentParser(
        prog=parser.prog,
        usage=f"{parser.prog} --config FILE|PRESET [--KEY VALUE ...]",
        description=parser.description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    options = {action.dest: action for action in parser._actions}
    for title, keys in groups.items():
        group = shown.add_argument_group(title)
        for key in keys:
            action = options[key]
            text = " ".join(str(action.help).split()).replace("%", "%%")
            if action.nargs == 0:
                group.add_argument(*action.option_strings, action="store_true", help=text)
                continue
            kind = getattr(action, "_typehint", None)  # a key's; the command's own options have none
            text += f" (default: {_plain(action.default)})" if kind else ""
            group.add_argument(action.option_strings[0], metavar=_metavar(kind) if kind else action.metavar, help=text)
    return shown.format_help()


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else json.dumps(value).strip('"')


def _metavar(kind: Any) -> str:
    """Return the placeholder of a value: ``hinge|wasserstein`` of a Literal, ``A,B,...`` of a list, else its type's."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is list:
        return "A,B,..."
    members = [member for member in get_args(kind) if member is not type(None)]
    if members:
        return _metavar(members[0])
    return {bool: "true|false", int: "N", float: "X"}.get(kind, "TEXT")
