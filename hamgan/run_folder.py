"""The guard of a run folder: what may change when a run is resumed."""

from pathlib import Path
from typing import Any

from hamgan.config import Config, ConfigError, config_to_dict, load_config

# A run may be resumed with other values of these; all else would make it a different run.
RESUMABLE: tuple[str, ...] = (
    "name",
    "run_dir",
    "train.total_kimg",
    "train.threads",
    "data.prefetch",
    "log.",
    "checkpoint.",
    "eval.",
)


def flat_config(config: Config) -> dict[str, Any]:
    """Dotted keys to values."""

    def walk(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat |= walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return flat

    return walk(config_to_dict(config), "")


def check_same_run(folder: Path, config: Config) -> None:
    """Raise ConfigError, listing the differences, when the folder holds something other than this run."""
    stored_path = folder / "config.yaml"
    if not stored_path.is_file():
        # A crash before the first file was in place leaves a temporary one.
        if folder.is_dir() and any(not item.name.endswith(".tmp") for item in folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and holds no run; choose another name or --run_dir")
        return
    stored, new = flat_config(load_config(stored_path)), flat_config(config)
    resumable = RESUMABLE
    if config.train.lr_schedule != "constant":  # the length decides the learning rates of every step
        resumable = tuple(key for key in RESUMABLE if key != "train.total_kimg")
    differences = [
        f"  {key}: {stored[key]!r} in the folder, {new[key]!r} now"
        for key in new
        if stored[key] != new[key] and not key.startswith(resumable)
    ]
    if differences:
        lines = "\n".join(differences)
        raise ConfigError(
            f"{folder} holds a run with another configuration:\n{lines}\n"
            "Restore these values to resume it, or choose another name or --run_dir for a new run."
        )
