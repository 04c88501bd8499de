"""Convert files of a reference into a generator file and a run that can be resumed."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from accelerate import Accelerator
from torch import nn

from hamgan.checkpoint import Progress, save_checkpoint, save_generator
from hamgan.config import Config, flat_config, load_config, save_config
from hamgan.convert.files import convert_file
from hamgan.convert.mapping import Conversion, check_fit, empty_network
from hamgan.errors import ConfigError, ConversionError
from hamgan.files import sha256, temporary_name, write_atomically
from hamgan.networks import Discriminator, Generator, build_networks
from hamgan.training.step import GanStep

SHARED_KEYS = ("resolution", "data.num_classes")
"""Keys that both networks of a model have in common, and that no option can change."""
AVERAGE = "G_ema"
"""Beginning of the name under which BigGAN-PyTorch saves the average of G: ``G_ema.pth``, ``G_ema_best0.pth``."""


@dataclass
class Converted:
    """Hold the networks of one model, checked against each other and against our networks."""

    config: Config
    source: dict[str, object]
    """Kind of the source, and name and sha256 of its files."""
    networks: dict[str, Conversion]
    """By role: generator, discriminator, average (the exponential average of G, BigGAN-PyTorch's G_ema)."""


def convert(
    files: Sequence[Path],
    *,
    average: Path | None = None,
    output: Path | None = None,
    output_run: Path | None = None,
    class_names: Path | None = None,
    kimg: float = 0.0,
    overrides: Sequence[str] = (),
    allow_leftovers: bool = False,
) -> None:
    """Convert files into a generator file, a run folder or both and print the report; all checks come before writing.

    average: the file of G's average. class_names: a file of names. kimg: thousands of images the weights have seen.
    overrides: ``key=value`` of the configuration. Raises ConversionError for files and ConfigError for options.
    """
    converted = convert_files(files, average, overrides, allow_leftovers)
    names = read_class_names(class_names, converted.config.data.num_classes or 0) if class_names else None
    if output_run is not None:
        check_run_is_possible(converted, output_run, overrides)
    print("\n".join(describe(converted)))
    if output is not None:
        write_converted_generator(converted, output, names, kimg)
        print(f"wrote {output}")
    if output_run is not None:
        write_run(converted, output_run, names, kimg)
        print(f"wrote {output_run}; resume: hamgan train --config {output_run}/config.yaml")


def convert_files(
    paths: Sequence[Path], average: Path | None = None, overrides: Sequence[str] = (), allow_leftovers: bool = False
) -> Converted:
    """Read, convert and check the networks of one model; ``overrides`` (``key=value``) tell what weights do not.

    Raises ConversionError for files that do not fit our networks or each other.
    """
    networks: dict[str, Conversion] = {}
    roles = dict.fromkeys(paths, "") | ({average: "average"} if average else {})
    read = {path: convert_file(path) for path in roles}
    kinds = {kind for kind, _ in read.values()}
    if len(kinds) > 1:
        raise ConversionError(f"the files are of different families: {', '.join(sorted(kinds))}")
    for path, role in roles.items():
        role = role or ("average" if path.name.startswith(AVERAGE) else "")
        for conversion in read[path][1]:
            name = role or conversion.network
            if role and conversion.network != "generator":
                raise ConversionError(f"{path} was given as the average of G, but holds a {conversion.network}")
            if name in networks:
                raise ConversionError(f"{path} holds a second {name}; give an averaged generator with --ema")
            networks[name] = conversion
    config = _with_overrides(_common_config(networks), overrides)
    for conversion in networks.values():
        conversion.config = config
        check_fit(conversion, allow_leftovers=allow_leftovers)
    # A TensorFlow checkpoint is several files, named by a prefix.
    digests = {path.name: sha256(path) if path.is_file() else None for path in roles}
    return Converted(config, {"kind": kinds.pop(), "sha256": digests}, networks)


def _common_config(networks: dict[str, Conversion]) -> Config:
    """Return G's configuration with D's own section; ConversionError when the files are not of one model."""
    first, *others = networks.values()
    for other in others:
        for key in SHARED_KEYS:
            one, two = flat_config(first.config)[key], flat_config(other.config)[key]
            if one != two:
                raise ConversionError(
                    f"the files are not of one model: {key} is {one} in the {first.network}, {two} in the "
                    f"{other.network}"
                )
    generators = [networks[role].config for role in ("generator", "average") if role in networks]
    if any(config.generator != generators[0].generator for config in generators):
        raise ConversionError("the generator and its average are of different architectures")
    config = generators[0] if generators else first.config
    if "discriminator" in networks:
        config.discriminator = networks["discriminator"].config.discriminator
    return config


def _with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    if not overrides:
        return config
    for text in overrides:
        if "=" not in text:
            raise ConfigError(f"--set {text}: write key=value, e.g. generator.hamburger.rank=32")
    with TemporaryDirectory() as folder:
        save_config(config, Path(folder) / "config.yaml")
        changed = load_config(Path(folder) / "config.yaml", overrides)
    before, after = flat_config(config), flat_config(changed)
    for key in SHARED_KEYS:
        if after[key] != before[key]:
            raise ConversionError(
                f"--set {key}={after[key]}: the weights are of {key} {before[key]} and cannot be "
                "converted to another; train.init_from starts another model from them"
            )
    return changed


def describe(converted: Converted) -> list[str]:
    """Report what was mapped, ignored, unused, missing and assumed, and the inferred configuration."""
    config = converted.config
    lines = [f"{converted.source['kind']}: {config.resolution} px, {config.data.num_classes} classes"]
    for role, network in converted.networks.items():
        values = sum(tensor.numel() for tensor in network.state.values())
        lines.append(
            f"{role}: {len(network.mapped)} tensors mapped ({values:,} values), {len(network.ignored)} without use for "
            f"a network, {len(network.unused)} unused, {len(network.missing)} missing"
        )
        lines += [f"  unused: {tensor}" for tensor in network.unused]
        lines += [f"  missing: {tensor} (initial value)" for tensor in network.missing]
    assumed = sorted({key for network in converted.networks.values() for key in network.assumed})
    if assumed:
        values_of = flat_config(config)
        shown = ", ".join(f"{key}={values_of[key]}" for key in assumed)
        lines.append(f"taken from the reference's own runs, for weights do not tell (--set changes them): {shown}")
    return lines


def _build(converted: Converted, role: str) -> nn.Module:
    """Build one of our networks with the converted weights."""
    conversion = converted.networks[role]
    if conversion.missing:  # these keep their initial values, which take minutes to draw at full size
        network: nn.Module = build_networks(converted.config)[0 if conversion.network == "generator" else 1]
    else:
        network = empty_network(conversion.network, converted.config).to_empty(device="cpu")
    network.load_state_dict(conversion.state, strict=not conversion.missing)
    return network


def read_class_names(path: Path, count: int) -> list[str]:
    """Read names from a JSON list or one per line; ConversionError unless there are as many as classes."""
    try:
        text = path.read_text()
        names = json.loads(text) if text.lstrip().startswith("[") else [line for line in text.splitlines() if line]
    except (OSError, ValueError) as error:
        raise ConversionError(f"the class names in {path} cannot be read: {error}") from error
    if not all(isinstance(name, str) for name in names) or len(names) != count:
        raise ConversionError(f"{path} has {len(names)} class names, but the weights are of {count} classes")
    return names


def write_converted_generator(
    converted: Converted, path: Path, class_names: list[str] | None = None, kimg: float = 0.0
) -> None:
    """Write the average of G, or G where there is none, as a file for sampling."""
    role = "average" if "average" in converted.networks else "generator"
    if role not in converted.networks:
        raise ConversionError("there is no generator in these files, so there is none to write")
    generator = cast(Generator, _build(converted, role))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(f"could not make the folder of {path}: {error}") from error
    is_average = role == "average"  # whatever the configuration says of a run that would go on from here
    statistics = "ema" if is_average else "running"
    extra = {"converted_from": converted.source, "ema": is_average, "batch_norm": statistics}
    save_generator(path, generator, converted.config, class_names=class_names, kimg=kimg, extra=extra)


def check_run_is_possible(converted: Converted, folder: Path, overrides: Sequence[str]) -> None:
    """Raise unless a run can start in the folder: both networks, known data, nothing overwritten."""
    missing = {"generator", "discriminator"} - set(converted.networks)
    if missing:
        raise ConversionError(f"a resumable run needs both networks; there is no {' and no '.join(sorted(missing))}")
    if not any(text.startswith("data.source=") for text in overrides):
        raise ConfigError("a run is bound to its data; add --set data.source=STORE (or photos, cifar10, a folder)")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; name a new folder")


def write_run(converted: Converted, folder: Path, class_names: list[str] | None = None, kimg: float = 0.0) -> None:
    """Write a run folder with one checkpoint (fresh optimisers) that `hamgan train` resumes; whole or not at all."""
    config = converted.config
    config.run_dir = str(folder)
    generator = cast(Generator, _build(converted, "generator"))
    discriminator = cast(Discriminator, _build(converted, "discriminator"))
    step = GanStep(generator, discriminator, config.train, Accelerator(cpu=True))
    average = converted.networks.get("average")
    if step.average is not None and average is not None:
        step.average.load_state_dict(average.state, strict=not average.missing)
    temporary = temporary_name(folder)
    try:
        temporary.mkdir(parents=True)
        save_checkpoint(temporary / "checkpoints", step, Progress(images=round(kimg * 1000)))
        write_converted_generator(converted, temporary / "generator.safetensors", class_names, kimg)
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
