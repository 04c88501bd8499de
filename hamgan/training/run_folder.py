"""Protect a run folder: against two runs at a time, and against a changed configuration."""

import itertools
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hamgan.config import Config, ConfigReader, RunConfig, flat_config
from hamgan.config.reading import GAN
from hamgan.distributed.group import from_main, rank
from hamgan.errors import ConfigError
from hamgan.files import lock
from hamgan.machine import describe_machine, package_versions
from hamgan.training.schedules import follows_length, scheduled_values, settings_at

# A run may be resumed with other values of these keys; any other key would make it a different run.
RESUMABLE: tuple[str, ...] = ("name", "run_dir", "train.total_kimg", "train.threads", "train.compile")
RESUMABLE += ("data.prefetch", "data.threads")
RESUMABLE += ("log.", "checkpoint.", "eval.", "monitor.")
LOCK = ".lock"
LENGTH = "train.total_kimg"

Differences = dict[str, tuple[object, object]]
"""Key -> (value in the folder, value now)."""


def check_same_run(
    folder: Path, config: RunConfig, override: Sequence[str] = (), reader: ConfigReader[Any] = GAN
) -> Differences:
    """Raise ConfigError, with a table of the differences, if the folder holds something other than this run.

    ``override`` names keys (or sections, such as ``train``) that may differ; returns all allowed differences.
    """
    reader.check_keys(list(override), "--override-resume")
    stored_path = folder / "config.yaml"
    if not stored_path.is_file():
        # A crash before the first file was complete leaves a temporary one.
        if folder.is_dir() and (there := [item.name for item in folder.iterdir() if not _is_ours(item.name)]):
            names = ", ".join(sorted(there)[:4]) + (", ..." if len(there) > 4 else "")
            raise ConfigError(
                f"{folder} is not empty and holds no run: there is {names}. Move that away, or name another folder: "
                f"{_another_folder(folder, config)}"
            )
        return {}
    stored, new = flat_config(reader.load_stored(stored_path)), flat_config(config)
    # A schedule may depend on the length, which then changes the values of every step: allowed, but recorded.
    constant = isinstance(config, Config) and not follows_length(config.train)
    recorded: set[str] = set() if constant else {LENGTH}
    changed = [key for key in new if stored[key] != new[key] and (key in recorded or not key.startswith(RESUMABLE))]
    differences = {key: (stored[key], new[key]) for key in changed}
    named = {key for key in differences if any(key == name or key.startswith(f"{name}.") for name in override)}
    named |= recorded & set(differences)
    refused = {key: values for key, values in differences.items() if key not in named}
    if refused:
        options = " ".join(f"--override-resume {key}" for key in refused)
        raise ConfigError(
            f"{folder} holds a run with another configuration:\n{difference_table(refused)}\n"
            f"Restore these values to resume it, start a new run by {_another_folder(folder, config)}, or continue "
            f"with the new values: {options}"
        )
    return {key: differences[key] for key in sorted(named)}


def _is_ours(name: str) -> bool:
    return name == LOCK or name.endswith(".tmp")


def _another_folder(folder: Path, config: RunConfig) -> str:
    """Return the option for the first unused folder next to this one, such as ``--name photos-2``."""
    number = next(number for number in itertools.count(2) if not Path(f"{folder}-{number}").exists())
    return f"--run_dir {folder}-{number}" if config.run_dir else f"--name {config.name}-{number}"


def describe_length(differences: Differences, config: Config, images: int) -> list[str]:
    """Describe what a changed length means for scheduled values that depend on it; at most one line."""
    if LENGTH not in differences or not follows_length(config.train):
        return []
    before = replace(config.train, total_kimg=float(str(differences[LENGTH][0])))
    first, then = (scheduled_values(train, settings_at(train, images)) for train in (before, config.train))
    moves = [f"{key} goes from {first[key]:.3g} to {then[key]:.3g}" for key in first if first[key] != then[key]]
    return [
        f"length    {config.train.total_kimg:g} kimg, was {before.total_kimg:g}: schedules end at the new end, so at "
        f"{images / 1000:g} kimg {', '.join(moves) or 'nothing changes yet'}"
    ]


def difference_table(differences: Differences) -> str:
    """Return one line per key: its name, the value in the folder, the value now."""
    lines = [("key", "in the folder", "now")]
    lines += [(key, json.dumps(stored), json.dumps(new)) for key, (stored, new) in differences.items()]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"  {key:<{widths[0]}}  {stored:<{widths[1]}}  {new}" for key, stored, new in lines)


def record_overrides(folder: Path, differences: Differences, images: int) -> None:
    """Append the changed values and the position in images from which on they hold to RUN/overrides.jsonl."""
    for key, (stored, new) in differences.items():
        row = {"kimg": images / 1000, "key": key, "before": stored, "after": new}
        _append_row(folder / "overrides.jsonl", row | {"time": _now()})


def record_environment(folder: Path, images: int, processes: int) -> None:
    """Append machine, versions and the position in images from which on they hold to RUN/environment.jsonl."""
    row = {"kimg": images / 1000, "time": _now(), "processes": processes} | describe_machine()
    _append_row(folder / "environment.jsonl", row | {"packages": package_versions()})


def _append_row(path: Path, row: Mapping[str, object]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class FolderLock:
    """Hold RUN/.lock in the main process from `acquire` until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = ExitStack()

    def acquire(self) -> None:
        """Lock the folder; all processes raise ConfigError if another run holds it, OSError if it is not writable."""
        problem = from_main(self._try_to_acquire() if rank() == 0 else None)
        if problem is not None:
            raise problem

    def _try_to_acquire(self) -> ConfigError | OSError | None:
        file = self.folder / LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(lock(file, wait=False))
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write_text(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        except BlockingIOError:
            holder = file.read_text().strip() or "another process"
            sentence = f"{self.folder} is being trained by {holder}; stop it first, or choose another name or --run_dir"
            return ConfigError(sentence)
        except OSError as error:
            return error
        return None

    def release(self) -> None:
        """Release the folder; safe to call twice."""
        self._held.close()
