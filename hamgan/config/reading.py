"""Read configurations from YAML and the command line by jsonargparse, with errors that name the nearest key.

`ConfigReader` reads any dataclass of dataclasses; the functions at the end are those of the GAN's `Config`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from hamgan.config.presets import find_config, suggest_config
from hamgan.config.schema import Config
from hamgan.config.suggestions import unknown_key
from hamgan.config.validation import validate
from hamgan.errors import ConfigError
from hamgan.files import write_atomically

# Docstrings below fields become the help of options.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

Values = dict[str, Any]
"""Keys and plain values of a configuration, nested as in YAML or flat with dotted keys."""

Kind = TypeVar("Kind")

REMOVED = {"train.recompute": "feature maps are always kept"}
"""Keys of earlier versions -> what replaced them. Allowed in stored configurations, refused in new ones."""


class _Parser(ArgumentParser):
    """Make ``--print_config`` print only keys that ``--config`` reads, without a command's own options."""

    keys: frozenset[str]

    def dump(self, namespace: Namespace, *arguments: Any, **options: Any) -> str:
        kept = Namespace(**{name: value for name, value in vars(namespace).items() if name in self.keys})
        text: str = super().dump(kept, *arguments, **options)
        return text


class ConfigReader(Generic[Kind]):
    """Read one kind of configuration, a dataclass of dataclasses, from YAML files, presets and options.

    ``validate`` raises ConfigError for values that do not fit together. ``section`` is the subfolder of this kind's
    presets, ``removed`` maps keys of earlier versions to what replaced them.
    """

    def __init__(
        self,
        kind: type[Kind],
        validate: Callable[[Kind], None],
        *,
        section: str = "",
        removed: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.validate, self.section, self.removed = kind, validate, section, dict(removed or {})

    def parser(self, **options: Any) -> ArgumentParser:
        """Make a parser whose options are the fields of the kind: ``--config FILE`` then ``--section.key value``.

        ``options`` go to the parser, e.g. ``prog`` and ``description``.
        """
        parser = _Parser(exit_on_error=False, **options)
        help_text = "YAML file or name of a preset; options override it"
        parser.add_argument("--config", action="config", metavar="FILE|PRESET", help=help_text)
        parser.add_class_arguments(self.kind, as_group=False)
        parser.keys = frozenset(vars(self.kind()))
        return parser

    @functools.cached_property
    def _shared_parser(self) -> ArgumentParser:
        # Building a parser takes most of the time of reading a configuration.
        return self.parser()

    def known_keys(self) -> list[str]:
        """List all dotted keys of a configuration, sections among them, e.g. ``train`` and ``train.batch_size``."""
        return list(_flatten(config_to_dict(self.kind())))

    def check_keys(self, keys: Sequence[str], where: str) -> None:
        """Raise ConfigError for the first key that no configuration has, naming the nearest one that exists."""
        known = self.known_keys()
        for key in keys:
            if key in self.removed:
                raise ConfigError(f"`{key}` in {where} is no longer an option: {self.removed[key]}; leave it out")
            if key not in known:
                raise ConfigError(unknown_key(key, known, where))

    def parse(self, arguments: Sequence[str], parser: ArgumentParser | None = None) -> tuple[Kind, Namespace]:
        """Read a configuration from command-line arguments; also returns the namespace with any further options.

        Raises ConfigError with one sentence for an unknown key, a wrong type or values that do not fit together.
        """
        parser = parser or self._shared_parser
        arguments = self._with_lists(self._with_config_paths(arguments))
        own = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
        for name in (argument.partition("=")[0] for argument in arguments):
            # argparse would accept an unambiguous prefix of an option.
            if name.startswith("--") and name[2:] not in own:
                self.check_keys([name[2:].removesuffix("+")], "the command line")
        try:
            namespace = parser.parse_args(arguments)
            config = self._instantiate(parser, namespace)
        except BrokenPipeError:  # from --help or --print_config
            raise
        except Exception as error:
            message = _one_sentence(error)
            stray = re.sub("^unrecognized arguments: ", "", message, flags=re.IGNORECASE)  # jsonargparse has had both
            reason = message if stray == message else suggest_config(stray.split()[0], self.section)
            raise ConfigError(reason) from error
        _check_sections(config_to_dict(config), self.kind(), "the command line")
        self.validate(config)
        return config, namespace

    def load(self, path: str | Path | None, overrides: Sequence[str] | None = None) -> Kind:
        """Read a YAML file or a preset (``photos``) and apply overrides such as ``"train.batch_size=64"``.

        Raises ConfigError (a sentence) for a missing file, unknown keys, wrong types or values that do not fit.
        """
        arguments = [] if path is None else ["--config", str(path)]
        arguments += [f"--{override.removeprefix('--')}" for override in overrides or []]
        return self.parse(arguments)[0]

    def from_dict(self, values: Values, where: str = "the stored configuration") -> Kind:
        """Make a configuration from the values of `config_to_dict`; ConfigError for unknown keys or wrong types."""
        if not isinstance(values, dict):
            raise ConfigError(f"{where} must hold keys and values, not a {type(values).__name__}")
        values = self._without_removed(values)
        self._check_values(values, where)
        try:
            return self._instantiate(self._shared_parser, self._shared_parser.parse_object(values))
        except Exception as error:
            raise ConfigError(_one_sentence(error)) from error

    def load_stored(self, path: Path) -> Kind:
        """Read the configuration in a run folder, also of an earlier version; raises ConfigError if it is not valid."""
        config = self.from_dict(_read_yaml(path), str(path))
        self.validate(config)
        return config

    def _check_values(self, values: Values, where: str) -> None:
        self.check_keys(list(_flatten(values)), where)
        _check_sections(values, self.kind(), where)

    def _with_config_paths(self, arguments: Sequence[str]) -> list[str]:
        """Move every ``--config`` to the front, so that options always override it, and check the keys of its file."""
        files, others, rest = [], [], iter(arguments)
        for argument in rest:
            name, equals, value = argument.partition("=")
            if name == "--config":
                path = find_config(value if equals else next(rest, ""), self.section)
                self._check_values(_read_yaml(path), str(path))
                files.append(f"--config={path}")
            else:
                others.append(argument)
        return files + others

    def _with_lists(self, arguments: Sequence[str]) -> list[str]:
        """Turn lists with commas, such as ``--eval.metrics fid,is``, into YAML lists."""
        lists = {f"--{key}" for key in _list_keys(self.kind())}
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

    def _instantiate(self, parser: ArgumentParser, namespace: Namespace) -> Kind:
        instances = parser.instantiate_classes(namespace)
        return self.kind(**{name: getattr(instances, name) for name in vars(self.kind())})

    def _without_removed(self, values: Values, prefix: str = "") -> Values:
        return {
            key: self._without_removed(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in values.items()
            if f"{prefix}{key}" not in self.removed
        }


def _flatten(values: Values, prefix: str = "") -> Values:
    """Return a mapping of dotted keys to values; a section, as a dictionary, precedes its own keys."""
    flat: Values = {}
    for key, value in values.items():
        flat[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
    return flat


def _list_keys(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a section that take lists, including optional ones."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            yield from _list_keys(value, f"{prefix}{item.name}.")
        elif any(get_origin(kind) is list for kind in (item.type, *get_args(item.type))):
            yield f"{prefix}{item.name}"


class _OneOfEach(yaml.SafeLoader):  # type: ignore[misc, unused-ignore]  # has no types
    """Read YAML as safe_load does, but refuse a duplicate key, whose first value safe_load drops."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key `{key.value}` stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _read_yaml(path: Path) -> Values:
    try:
        values = yaml.load(path.read_text(), _OneOfEach)
        if isinstance(values, dict):
            _flatten(values)  # fails here for an alias that contains itself
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date such as 2020-99-99
        raise ConfigError(f"{path} is not valid YAML: {_one_sentence(error)}") from error
    if not isinstance(values, dict):
        what = "it is empty" if values is None else f"not a {type(values).__name__}"
        raise ConfigError(f"{path} must hold `key: value` lines; {what}")
    return values


def _check_sections(values: Values, section: Any, where: str, prefix: str = "") -> None:
    """Raise ConfigError for a section that is no mapping, or for null where it is not allowed.

    jsonargparse accepts null everywhere and reports an empty section as an unexpected config.
    """
    for item in dataclasses.fields(section):
        if item.name not in values:
            continue
        value, default, key = values[item.name], getattr(section, item.name), prefix + item.name
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"`{key}` in {where} is a section: give it `key: value` lines or leave it out")
            _check_sections(value, default, where, f"{key}.")
        elif value is None and type(None) not in get_args(item.type):
            raise ConfigError(f"`{key}` in {where} has no value; give one, or leave the key out")


def _one_sentence(error: Exception) -> str:
    """Return an error's message on one line; jsonargparse writes one for every member of a union."""
    return " ".join(str(error).split())


def config_to_dict(config: Any) -> Values:
    """Return a configuration as plain nested values, e.g. for YAML or a safetensors header."""
    return dataclasses.asdict(config)


def save_config(config: Any, path: Path) -> None:
    """Write the resolved configuration as YAML; a crash leaves the old file or the new one."""
    write_atomically(path, yaml.safe_dump(config_to_dict(config), sort_keys=False))


def flat_config(config: Any) -> Values:
    """Return a mapping of dotted keys to values, without sections."""
    return {key: value for key, value in _flatten(config_to_dict(config)).items() if not isinstance(value, dict)}


GAN = ConfigReader(Config, validate, removed=REMOVED)
"""Reader of the GAN's configurations; `hamgan.config` exports its methods as functions."""
config_parser = GAN.parser
known_keys = GAN.known_keys
check_keys = GAN.check_keys
parse_config = GAN.parse
load_config = GAN.load
config_from_dict = GAN.from_dict
load_stored_config = GAN.load_stored
