"""Reading configurations from YAML and the command line by jsonargparse, with errors that name the nearest key."""

import dataclasses
import difflib
import functools
import os
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from hamgan.config.schema import Config
from hamgan.config.validation import validate
from hamgan.errors import ConfigError, did_you_mean

# The text below a field is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def config_parser(**kwargs: Any) -> ArgumentParser:
    """A parser whose options are the fields of Config: ``--config FILE`` then ``--section.key value``."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    parser.add_class_arguments(Config, as_group=False)
    return parser


REMOVED = {"train.recompute": "feature maps are always kept"}
"""Keys of earlier versions, and what holds instead. A stored configuration may still have them, a new one may not."""

# Building a parser takes most of the time of reading a configuration.
_shared_parser = functools.cache(config_parser)


def known_keys() -> list[str]:
    """All dotted keys of a configuration, e.g. ``train.batch_size``."""

    def walk(cls: Any, prefix: str) -> list[str]:
        keys: list[str] = []
        for item in dataclasses.fields(cls):
            default = item.default_factory() if callable(item.default_factory) else item.default
            keys.append(prefix + item.name)
            if dataclasses.is_dataclass(default):
                keys += walk(type(default), f"{prefix}{item.name}.")
        return keys

    return walk(Config, "")


def check_keys(keys: list[str], where: str) -> None:
    """Raise ConfigError for the first key that no configuration has, naming the nearest one that exists."""
    known = known_keys()
    for key in keys:
        if key in REMOVED:
            raise ConfigError(f"`{key}` in {where} is no longer an option: {REMOVED[key]}; leave it out")
        if key not in known:
            near = _nearest_key(key, known)
            hint = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
            raise ConfigError(f"unknown key `{key}` in {where}{hint}")


def _nearest_key(key: str, known: list[str]) -> list[str]:
    """`batch_size` finds all keys that end so, `train.batchsize` `train.batch_size`, `lr` `train.generator_lr`."""
    last = key.rsplit(".", 1)[-1]
    lasts = {name: name.rsplit(".", 1)[-1] for name in known}
    same = [name for name in known if lasts[name] == last][:3]
    near = same or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        nearest = difflib.get_close_matches(last, lasts.values(), n=1, cutoff=0.6)
        near = [name for name in known if lasts[name] in nearest or lasts[name].endswith(f"_{last}")][:3]
    return near


def _flatten(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _flatten(value, f"{prefix}{key}.")
    return keys


def _check_file(path: Path) -> None:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        names = sorted(str(item) for item in folder.glob("*.yaml"))
        raise ConfigError(f"no configuration file at {path}{did_you_mean(str(path), names)}")
    values = _read_yaml(path)
    check_keys(_flatten(values), str(path))
    _check_sections(values, Config(), str(path))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
        if isinstance(values, dict):
            _flatten(values)  # fails here for an alias that contains itself
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2020-99-99
        raise ConfigError(f"{path} is not valid YAML: {_one_sentence(str(error))}") from error
    if not isinstance(values, dict):
        what = "it is empty" if values is None else f"not a {type(values).__name__}"
        raise ConfigError(f"{path} must hold `key: value` lines; {what}")
    return values


def _check_sections(values: dict[str, Any], section: Any, where: str, prefix: str = "") -> None:
    """jsonargparse takes null for everything and calls an empty section an unexpected config; say what is wrong."""
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


def parse_config(arguments: list[str], parser: ArgumentParser | None = None) -> tuple[Config, Namespace]:
    """Read a configuration from command-line arguments; also returns the namespace with any further options.

    Raises ConfigError with one sentence for an unknown key, a wrong type or values that do not fit together.
    """
    parser = parser or _shared_parser()
    own = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--config":
            _check_file(Path(value or (arguments[position + 1] if position + 1 < len(arguments) else "")))
        elif name.startswith("--") and name[2:] not in own:
            check_keys([name[2:].removesuffix("+")], "the command line")
    try:
        namespace = parser.parse_args(arguments)
        instances = parser.instantiate_classes(namespace)
    except Exception as error:
        raise ConfigError(_one_sentence(str(error))) from error
    config = Config(**{item.name: getattr(instances, item.name) for item in dataclasses.fields(Config)})
    _check_sections(config_to_dict(config), Config(), "the command line")
    validate(config)
    return config, namespace


def _one_sentence(message: str) -> str:
    """jsonargparse explains every member of a union on a line of its own; keep it readable on one."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file and apply overrides such as ``"train.batch_size=64"``.

    Raises ConfigError (a sentence) for a missing file, unknown keys, wrong types or values that do not fit.
    """
    arguments = [] if path is None else ["--config", str(path)]
    arguments += [f"--{override.removeprefix('--')}" for override in overrides or []]
    return parse_config(arguments)[0]


def config_to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain nested values, e.g. for YAML or a safetensors header."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any], where: str = "the stored configuration") -> Config:
    """The inverse of config_to_dict; raises ConfigError for unknown keys or wrong types."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold keys and values, not a {type(values).__name__}")
    values = _without_removed(values)
    check_keys(_flatten(values), where)
    _check_sections(values, Config(), where)
    parser = _shared_parser()
    try:
        instances = parser.instantiate_classes(parser.parse_object(values))
    except Exception as error:
        raise ConfigError(_one_sentence(str(error))) from error
    return Config(**{item.name: getattr(instances, item.name) for item in dataclasses.fields(Config)})


def _without_removed(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flat_config(config: Config) -> dict[str, Any]:
    """Dotted keys to values."""

    def walk(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat |= walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return flat

    return walk(config_to_dict(config), "")
