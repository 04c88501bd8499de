"""Find configuration files: by path, or by the name of a preset that comes with the package."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hamgan.errors import ConfigError, did_you_mean


def preset_folder(section: str = "") -> Path:
    """Return the folder of the presets: inside the installed package, or next to it in a checkout.

    ``section`` is a subfolder for the presets of another task, such as ``segmentation``; the GAN's are at the top.
    """
    package = Path(str(resources.files("hamgan")))
    installed = package / "configs"
    return (installed if installed.is_dir() else package.parent / "configs") / section


def preset_names(section: str = "") -> list[str]:
    """Return the names of all presets, without ``.yaml``."""
    return sorted(path.stem for path in preset_folder(section).glob("*.yaml"))


def preset_path(name: str, section: str = "") -> Path:
    """Return the file of a preset, named with or without ``.yaml``; ConfigError names the nearest and lists all."""
    stem, names = name.removesuffix(".yaml"), preset_names(section)
    if stem not in names:
        raise ConfigError(f"no preset is called `{stem}`; there are {', '.join(names)}{did_you_mean(stem, names)}")
    return preset_folder(section) / f"{stem}.yaml"


def find_config(given: str, section: str = "") -> Path:
    """Return the file at a path, else the preset of this name; raises ConfigError if there is neither."""
    path, names = Path(given), preset_names(section)
    if path.is_file():
        return path
    if (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is a run folder; its configuration is --config {path / 'config.yaml'}")
    if not given:
        raise ConfigError(f"--config needs a file or the name of a preset: {', '.join(names)}")
    if path.name == given and (not path.suffix or given.removesuffix(".yaml") in names):
        return preset_path(given, section)
    neighbours = sorted(str(item) for item in path.parent.glob("*.yaml"))
    near = did_you_mean(given, neighbours) or did_you_mean(path.stem, names) or "."
    raise ConfigError(f"no configuration file at {path}{near} Presets are {', '.join(names)}")


def check_run_to_resume(arguments: Sequence[str], folder: Path) -> None:
    """Raise ConfigError if ``--config`` is the file of a run in another folder than ``folder``, where it would go on.

    This happens when a run folder was moved or the command runs in another working folder: the run would start again
    instead of resuming. ``--name`` or ``--run_dir`` state that this is intended.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    file = Path(words[words.index("--config") + 1])
    place, is_run = file.parent, file.name == "config.yaml" and (file.parent / "checkpoints").is_dir()
    if is_run and not {"--name", "--run_dir"} & set(words) and place.resolve() != folder.resolve():
        raise ConfigError(
            f"{place} holds a run, but with this configuration a new one would start in {folder}; to resume it: "
            f"--run_dir {place}; for a new run with its configuration: --name NAME"
        )


def suggest_config(stray: str, section: str = "") -> str:
    """Return the error for a stray argument, with the configuration or run that was probably meant."""
    path = Path(stray)
    if (path / "config.yaml").is_file():
        return f"`{stray}` is given without an option; to resume that run: --config {path / 'config.yaml'}"
    names = [stray] if path.is_file() else difflib.get_close_matches(path.stem, preset_names(section), n=1)
    hint = f"; did you mean --config {names[0]}?" if names else ""
    return f"`{stray}` is given without an option{hint}"
