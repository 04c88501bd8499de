"""Read configurations from YAML and the command line by jsonargparse, with errors that name the nearest key."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from hamgan.config.presets import find_config, suggest_config
from hamgan.config.schema import Config
from hamgan.config.suggestions import unknown_key
from hamgan.config.validation import validate
from hamgan.errors import ConfigError
from hamgan.files import write_atomically

# The text below a field is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

Values = dict[str, Any]
"""Keys and plain values of a configuration, nested as in YAML or flat with dotted keys."""

REMOVED = {"train.recompute": "feature maps are always kept"}
"""Keys of earlier versions, and what holds instead. A stored configuration may still have them, a new one may not."""


def config_parser(**options: Any) -> ArgumentParser:
    """Make a parser whose options are the fields of Config: ``--config FILE`` then ``--section.key value``.

    ``options`` go to the parser, e.g. ``prog`` and ``description``.
    """
    parser = ArgumentParser(exit_on_error=False, **options)
    help_text = "YAML file or name of a preset; later options override it"
    parser.add_argument("--config", action="config", metavar="FILE|PRESET", help=help_text)
    parser.add_class_arguments(Config, as_group=False)
    return parser


# Building a parser takes most of the time of reading a configuration.
_shared_parser = functools.cache(config_parser)


def known_keys() -> list[str]:
    """List all dotted keys of a configuration, sections among them, e.g. ``train`` and ``train.batch_size``."""
    return list(_flatten(config_to_dict(Config())))


def check_keys(keys: Sequence[str], where: str) -> None:
    """Raise ConfigError for the first key that no configuration has, naming the nearest one that exists."""
    known = known_keys()
    for key in keys:
        if key in REMOVED:
            raise ConfigError(f"`{key}` in {where} is no longer an option: {REMOVED[key]}; leave it out")
        if key not in known:
            raise ConfigError(unknown_key(key, known, where))


def _flatten(values: Values, prefix: str = "") -> Values:
    """Return dotted keys to values; a section stands, as a dictionary, in front of its own keys."""
    flat: Values = {}
    for key, value in values.items():
        flat[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
    return flat


def _read_yaml(path: Path) -> Values:
    try:
        values = yaml.safe_load(path.read_text())
        if isinstance(values, dict):
            _flatten(values)  # fails here for an alias that contains itself
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2020-99-99
        raise ConfigError(f"{path} is not valid YAML: {_one_sentence(error)}") from error
    if not isinstance(values, dict):
        what = "it is empty" if values is None else f"not a {type(values).__name__}"
        raise ConfigError(f"{path} must hold `key: value` lines; {what}")
    return values


def _check_sections(values: Values, section: Any, where: str, prefix: str = "") -> None:
    """Raise ConfigError for a value without a section, or null where it is not allowed.

    jsonargparse takes null for everything and calls an empty section an unexpected config.
    """
    for item in dataclasses.fields(section):
        if item.name not in values:
            continue
        value, default, key = values[item.name], getattr(section, item.name), prefix + item.name
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"`{key}` in {where} is a section: give it `key: value` lines or leave it out")
            _check_sections(value, default, where, f"{key}.")
        elif value is None and default is not None:
            raise ConfigError(f"`{key}` in {where} has no value; give one, or leave the key out")


def _check_values(values: Values, where: str) -> None:
    check_keys(list(_flatten(values)), where)
    _check_sections(values, Config(), where)


def parse_config(arguments: Sequence[str], parser: ArgumentParser | None = None) -> tuple[Config, Namespace]:
    """Read a configuration from command-line arguments; also returns the namespace with any further options.

    Raises ConfigError with one sentence for an unknown key, a wrong type or values that do not fit together.
    """
    parser = parser or _shared_parser()
    arguments = _with_lists(_with_config_paths(arguments))
    own = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    for name in (argument.partition("=")[0] for argument in arguments):
        # argparse alone would take an unambiguous beginning of an option for the option.
        if name.startswith("--") and name[2:] not in own:
            check_keys([name[2:].removesuffix("+")], "the command line")
    try:
        namespace = parser.parse_args(arguments)
        config = _instantiate(parser, namespace)
    except BrokenPipeError:  # nobody reads what --help or --print_config says
        raise
    except Exception as error:
        message = _one_sentence(error)
        stray = message.removeprefix("unrecognized arguments: ")
        raise ConfigError(message if stray == message else suggest_config(stray.split()[0])) from error
    _check_sections(config_to_dict(config), Config(), "the command line")
    validate(config)
    return config, namespace


def _with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Replace the value of ``--config`` by the path of its file, whose keys are checked."""
    found, rest = [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--config":
            path = find_config(value if equals else next(rest, ""))
            _check_values(_read_yaml(path), str(path))
            argument = f"--config={path}"
        found.append(argument)
    return found


def _with_lists(arguments: Sequence[str]) -> list[str]:
    """Write lists that are given with commas, as ``--eval.metrics fid,is``, as YAML does."""
    lists = {f"--{key}" for key, value in flat_config(Config()).items() if isinstance(value, list)}
    found, rest = [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in lists and not equals:
            following = next(rest, None)
            equals, value = ("=", following) if following is not None else ("", "")
        if name in lists and equals:
            argument = f"{name}={value}" if value.startswith("[") or value == "null" else f"{name}=[{value}]"
        found.append(argument)
    return found


def _instantiate(parser: ArgumentParser, namespace: Namespace) -> Config:
    instances = parser.instantiate_classes(namespace)
    return Config(**{item.name: getattr(instances, item.name) for item in dataclasses.fields(Config)})


def _one_sentence(error: Exception) -> str:
    """Join the lines on which jsonargparse explains every member of a union."""
    return " ".join(str(error).split())


def load_config(path: str | Path | None, overrides: Sequence[str] | None = None) -> Config:
    """Read a YAML file or a preset (``photos``) and apply overrides such as ``"train.batch_size=64"``.

    Raises ConfigError (a sentence) for a missing file, unknown keys, wrong types or values that do not fit.
    """
    arguments = [] if path is None else ["--config", str(path)]
    arguments += [f"--{override.removeprefix('--')}" for override in overrides or []]
    return parse_config(arguments)[0]


def config_to_dict(config: Config) -> Values:
    """Return the configuration as plain nested values, e.g. for YAML or a safetensors header."""
    return dataclasses.asdict(config)


def config_from_dict(values: Values, where: str = "the stored configuration") -> Config:
    """Make a configuration of what `config_to_dict` returned; raises ConfigError for unknown keys or wrong types."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values, not a {type(values).__name__}")
    values = _without_removed(values)
    _check_values(values, where)
    parser = _shared_parser()
    try:
        return _instantiate(parser, parser.parse_object(values))
    except Exception as error:
        raise ConfigError(_one_sentence(error)) from error


def _without_removed(values: Values, prefix: str = "") -> Values:
    return {
        key: _without_removed(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in REMOVED
    }


def load_stored_config(path: Path) -> Config:
    """Read the configuration that a run wrote into its folder, perhaps by an earlier version; raises ConfigError."""
    config = config_from_dict(_read_yaml(path), str(path))
    validate(config)
    return config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML; a crash leaves the old file or the new one."""
    write_atomically(path, yaml.safe_dump(config_to_dict(config), sort_keys=False))


def flat_config(config: Config) -> Values:
    """Return dotted keys to values, without the sections."""
    return {key: value for key, value in _flatten(config_to_dict(config)).items() if not isinstance(value, dict)}
