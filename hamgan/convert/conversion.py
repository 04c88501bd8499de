"""Convert files of a reference into a generator file and a run that can be resumed."""

import hashlib
import json
import os
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from accelerate import Accelerator
from torch import nn

from hamgan.checkpoint import Progress, save_checkpoint, save_generator
from hamgan.config import Config, load_config, save_config
from hamgan.convert.files import convert_file
from hamgan.convert.mapping import Conversion, check_fit, empty_network
from hamgan.errors import ConfigError, ConversionError
from hamgan.files import write_atomically
from hamgan.networks import Discriminator, Generator, build_networks
from hamgan.training.step import GanStep


@dataclass
class Converted:
    """The networks of one source, checked against each other and against our networks."""

    config: Config
    source: dict[str, Any]
    """Kind of the source, and name and sha256 of its files."""
    generator: Conversion | None = None
    discriminator: Conversion | None = None
    average: Conversion | None = None
    """The exponential average of G (BigGAN-PyTorch's G_ema)."""

    @property
    def parts(self) -> dict[str, Conversion]:
        """What there is, by name."""
        every = {"generator": self.generator, "average": self.average, "discriminator": self.discriminator}
        return {name: part for name, part in every.items() if part is not None}


def convert_files(
    paths: Sequence[Path], average: Path | None = None, overrides: Sequence[str] = (), allow_leftovers: bool = False
) -> Converted:
    """Read, convert and check the networks of one model; ``overrides`` (``key=value``) tell what weights do not.

    Raises ConversionError for files that do not fit our networks or each other.
    """
    found: dict[str, Conversion] = {}
    roles = dict.fromkeys(paths, "") | ({average: "average"} if average else {})
    read = {path: convert_file(path) for path in roles}
    kinds = {kind for kind, _ in read.values()}
    if len(kinds) > 1:
        raise ConversionError(f"the files are of different families: {', '.join(sorted(kinds))}")
    for path, role in roles.items():
        for conversion in read[path][1]:
            name = role or conversion.network
            if role and conversion.network != "generator":
                raise ConversionError(f"{path} was given as the average of G, but holds a {conversion.network}")
            if name in found:
                raise ConversionError(f"{path} holds a second {name}; give an averaged generator with --ema")
            found[name] = conversion
    config = _with_overrides(_common_config(found), overrides)
    for conversion in found.values():
        conversion.config = config
        check_fit(conversion, allow_leftovers=allow_leftovers)
    digests = {path.name: _sha256(path) for path in roles}
    return Converted(config, {"kind": kinds.pop(), "sha256": digests}, **found)


def _sha256(path: Path) -> str | None:
    """Of a file; a TensorFlow checkpoint is several, named by a prefix."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _common_config(found: dict[str, Conversion]) -> Config:
    """G's configuration with D's own section; ConversionError when the files are not of one model."""
    first, *others = found.values()
    for other in others:
        for key in ("resolution", "data.num_classes"):
            one, two = _value(first.config, key), _value(other.config, key)
            if one != two:
                raise ConversionError(
                    f"the files are not of one model: {key} is {one} in the {first.network}, {two} in the "
                    f"{other.network}"
                )
    if {"generator", "average"} <= set(found) and (
        found["generator"].config.generator != found["average"].config.generator
    ):
        raise ConversionError("the generator and its average are of different architectures")
    config = found.get("generator", found.get("average", first)).config
    if "discriminator" in found:
        config.discriminator = found["discriminator"].config.discriminator
    return config


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    if not overrides:
        return config
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"--set {text}: write key=value, e.g. generator.hamburger.rank=32")
    with TemporaryDirectory() as folder:
        save_config(config, Path(folder) / "config.yaml")
        changed = load_config(Path(folder) / "config.yaml", list(overrides))
    for key in ("resolution", "data.num_classes"):
        if _value(changed, key) != _value(config, key):
            raise ConversionError(
                f"--set {key}={_value(changed, key)}: the weights are of {key} {_value(config, key)} and cannot be "
                "converted to another; train.init_from starts another model from them"
            )
    return changed


def describe(converted: Converted) -> list[str]:
    """The report: what was mapped, ignored, unused, missing and assumed, and the inferred configuration."""
    config = converted.config
    lines = [f"{converted.source['kind']}: {config.resolution} px, {config.data.num_classes} classes"]
    for name, part in converted.parts.items():
        values = sum(tensor.numel() for tensor in part.state.values())
        lines.append(
            f"{name}: {len(part.mapped)} tensors mapped ({values:,} values), {len(part.ignored)} without use for a "
            f"network, {len(part.unused)} unused, {len(part.missing)} missing"
        )
        lines += [f"  unused: {tensor}" for tensor in part.unused]
        lines += [f"  missing: {tensor} (initial value)" for tensor in part.missing]
    assumed = {key: _value(config, key) for part in converted.parts.values() for key in part.assumed}
    if assumed:
        shown = ", ".join(f"{key}={value}" for key, value in sorted(assumed.items()))
        lines.append(f"taken from the reference's own runs, for weights do not tell (--set changes them): {shown}")
    return lines


def _network(converted: Converted, name: str) -> nn.Module:
    part = converted.parts[name]
    if part.missing:  # these keep their initial values, which take minutes to draw at full size
        network: nn.Module = build_networks(converted.config)[0 if part.network == "generator" else 1]
    else:
        network = empty_network(part.network, converted.config).to_empty(device="cpu")
    network.load_state_dict(part.state, strict=not part.missing)
    return network


def read_class_names(path: Path, count: int) -> list[str]:
    """Names from a JSON list or one per line; ConversionError unless there are as many as classes."""
    try:
        text = path.read_text()
        names = json.loads(text) if text.lstrip().startswith("[") else [line for line in text.splitlines() if line]
    except (OSError, ValueError) as error:
        raise ConversionError(f"the class names in {path} cannot be read: {error}") from error
    if not all(isinstance(name, str) for name in names) or len(names) != count:
        raise ConversionError(f"{path} has {len(names)} class names, but the weights are of {count} classes")
    return names


def write_generator(converted: Converted, path: Path, class_names: list[str] | None = None, kimg: float = 0.0) -> None:
    """Write the average of G, or G where there is none, as a file for sampling."""
    name = "average" if converted.average is not None else "generator"
    if name not in converted.parts:
        raise ConversionError("there is no generator in these files, so there is none to write")
    generator = cast(Generator, _network(converted, name))
    extra = {"converted_from": converted.source}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(f"could not make the folder of {path}: {error}") from error
    save_generator(path, generator, converted.config, class_names=class_names, kimg=kimg, extra=extra)


def check_run_is_possible(converted: Converted, folder: Path, overrides: Sequence[str]) -> None:
    """Raise unless a run can start in the folder: both networks, known data, nothing overwritten."""
    missing = {"generator", "discriminator"} - set(converted.parts)
    if missing:
        raise ConversionError(f"a resumable run needs both networks; there is no {' and no '.join(sorted(missing))}")
    if not any(text.startswith("data.source=") for text in overrides):
        raise ConfigError("a run is bound to its data; add --set data.source=STORE (or photos, cifar10, a folder)")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; name a new folder")


def write_run(converted: Converted, folder: Path, class_names: list[str] | None = None, kimg: float = 0.0) -> None:
    """Write a run folder with one checkpoint (fresh optimisers) that scripts/train.py resumes; whole or not at all."""
    config = converted.config
    config.run_dir = str(folder)
    generator = cast(Generator, _network(converted, "generator"))
    discriminator = cast(Discriminator, _network(converted, "discriminator"))
    step = GanStep(generator, discriminator, config.train, Accelerator(cpu=True))
    if step.average is not None and converted.average is not None:
        step.average.load_state_dict(converted.average.state, strict=not converted.average.missing)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        save_checkpoint(temporary / "checkpoints", step, Progress(images=round(kimg * 1000)))
        write_generator(converted, temporary / "generator.safetensors", class_names, kimg)
        if class_names is not None:
            write_atomically(temporary / "classes.json", json.dumps(class_names))
        save_config(config, temporary / "config.yaml")
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise ConversionError(f"could not write {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def convert(options: Namespace) -> None:
    """Convert as the options of scripts/convert.py say and print the report; nothing is written before all checks."""
    converted = convert_files(options.files, options.ema, options.set, options.allow_leftovers)
    names = None
    if options.class_names is not None:
        names = read_class_names(options.class_names, converted.config.data.num_classes or 0)
    if options.output_run is not None:
        check_run_is_possible(converted, options.output_run, options.set)
    print("\n".join(describe(converted)))
    if options.output is not None:
        write_generator(converted, options.output, names, options.kimg)
        print(f"wrote {options.output}")
    if options.output_run is not None:
        write_run(converted, options.output_run, names, options.kimg)
        print(f"wrote {options.output_run}; resume: scripts/train.py --config {options.output_run}/config.yaml")
