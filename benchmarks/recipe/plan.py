"""Fix what a comparison trains: the configuration of every variant, and the images that each sees."""

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.steps import benchmark_accelerator
from benchmarks.timing import Timings, Work, time_in_turn
from hamgan.config import Config, config_to_dict, load_config
from hamgan.data import open_training
from hamgan.errors import ConfigError, did_you_mean
from hamgan.files import write_atomically
from hamgan.networks import build_networks
from hamgan.training.batches import Batches
from hamgan.training.noise import Noise
from hamgan.training.setup import with_classes
from hamgan.training.step import GanStep

STEPS = 8
"""Steps per round of the measurement: penalties that come every few steps are met in each."""


@dataclass
class Run:
    """Hold one training of a comparison, and once it is finished what was measured."""

    variant: str
    seed: int
    kimg: float
    folder: Path
    numbers: dict[str, float] | None = None
    failure: str = ""
    """Last line of a training that ended in an error, such as a divergence."""

    def summary(self) -> str:
        """Return the numbers on a line, or why there are none."""
        if self.numbers is None:
            return f"failed: {self.failure}"
        return f"{self.kimg:g} kimg, " + ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())


@dataclass
class Plan:
    """Hold what is compared; ``costs`` has the time per image by variant, as a part of the first variant's."""

    folder: Path
    variants: dict[str, Config]
    seeds: list[int]
    equal: str
    kimg: float
    costs: dict[str, float]
    clock: str

    @property
    def base(self) -> str:
        """Return the variant that the others are compared with: the first."""
        return next(iter(self.variants))

    @property
    def config(self) -> Config:
        """Return the configuration of the first variant, which has the data and the evaluation of all."""
        return self.variants[self.base]

    def run(self, variant: str, seed: int) -> Run:
        """Return a run, to see the images that it has time for where the time is equal."""
        kimg = self.kimg / (self.costs[variant] if self.equal == "time" else 1.0)
        return Run(variant, seed, round(kimg, 3), self.folder / f"{variant}-{seed}")


def read_variants(config: str, names: Sequence[str], file: Path) -> dict[str, Config]:
    """Return the configurations of variants by name; ConfigError for an unknown name or key."""
    try:
        known = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--variants-file {file} cannot be read: {error}") from error
    if not isinstance(known, dict) or not all(isinstance(values, dict) for values in known.values()):
        raise ConfigError(f"--variants-file {file} must map names to mappings, such as `lecam: {{train.lecam: 0.01}}`")
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"{file.name} has no variant {name!r}{hint}; it has {', '.join(known)}")
    return {
        name: load_config(config, [f"{key}={_as_option(value)}" for key, value in known[name].items()])
        for name in dict.fromkeys(names)
    }


def _as_option(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def make_plan(options: argparse.Namespace) -> Plan:
    """Read the options and what earlier calls have fixed in the output folder, and measure what is not yet there.

    Raises ConfigError where the folder holds a comparison of another configuration, length or kind.
    """
    variants = read_variants(options.config, options.variants, options.variants_file)
    base, file = options.variants[0], options.output / "plan.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"variants": {}, "costs": {}}
    asked = {"base": base, "equal": options.equal, "minutes": options.minutes, "kimg": options.kimg}
    configs = {name: config_to_dict(one) for name, one in variants.items()}
    _check_same(options.output, kept, asked, configs)
    missing = {name: one for name, one in variants.items() if name not in kept["costs"]}
    if missing:
        timed = {base: variants[base], **missing}
        timings = measure_steps(timed, options.device, options.rounds)
        kept["costs"] |= {name: cost_per_image(timings, timed, name, base) for name in missing}
        kept.setdefault("seconds_per_image", timings.median(base) / (STEPS * _images(variants[base])))
        kept.setdefault("clock", timings.clock)
    write_atomically(file, json.dumps(kept | asked | {"variants": kept["variants"] | configs}, indent=1) + "\n")
    kimg = options.kimg or options.minutes * 60 / kept["seconds_per_image"] / 1000
    return Plan(options.output, variants, options.seeds, options.equal, kimg, kept["costs"], kept["clock"])


def _check_same(folder: Path, kept: dict[str, Any], asked: dict[str, Any], configs: dict[str, dict[str, Any]]) -> None:
    """Raise ConfigError where a folder holds runs that the asked ones cannot be compared with."""
    for key, value in asked.items():
        if kept.get(key, value) != value:
            raise ConfigError(
                f"--output {folder} holds a comparison with {key} {kept[key]}, not {value}; take another folder"
            )
    for name, values in configs.items():
        if kept["variants"].get(name, values) != values:
            raise ConfigError(f"--output {folder} has trained {name} with other values; take another folder")


def measure_steps(variants: dict[str, Config], device: torch.device, rounds: int) -> Timings:
    """Measure training steps on the data of the variants, in turn."""
    with contextlib.ExitStack() as stack:
        works = {name: stack.enter_context(_steps(config, device)) for name, config in variants.items()}
        return time_in_turn(works, rounds, device=device)


def cost_per_image(timings: Timings, variants: dict[str, Config], name: str, base: str) -> float:
    """Return the time that a variant takes per image that D sees, divided by the base's."""
    return timings.ratio(name, base) * _images(variants[base]) / _images(variants[name])


def _images(config: Config) -> int:
    """Return the images that D sees in a step."""
    return config.train.batch_size * config.train.discriminator_steps


@contextlib.contextmanager
def _steps(config: Config, device: torch.device) -> Iterator[Work]:
    """Give a function that makes some training steps, with everything that training does between two rows."""
    source = open_training(config.data, config.resolution)
    config = with_classes(config, source)
    accelerator = benchmark_accelerator(config, device)
    step = GanStep(*build_networks(config), config.train, accelerator)
    train = config.train
    noise = Noise(config.seed, accelerator.device, train.batch_size // train.accumulation)
    batches = Batches(config, source, noise, step, 0)
    seen = 0

    def make_steps() -> None:
        nonlocal seen
        for _ in range(STEPS):
            for index in range(train.discriminator_steps):
                shown = batches.for_discriminator(seen, index)
                step.discriminator_step(shown)
            step.generator_step(batches.for_generator(seen, shown))
            seen += _images(config)
            step.update_average(seen)

    with contextlib.closing(batches):
        yield make_steps


def config_of(plan: Plan, run: Run) -> Config:
    """Return the configuration that a run trains: its variant's, with its seed, length and folder."""
    config = plan.variants[run.variant]
    return replace(
        config,
        name=f"{run.variant}-{run.seed}",
        seed=run.seed,
        run_dir=str(run.folder),
        train=replace(config.train, total_kimg=run.kimg),
        checkpoint=replace(config.checkpoint, keep_last=1, keep_best=0),
    )
