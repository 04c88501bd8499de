"""Check output paths before anything is loaded. Imports no torch."""

from pathlib import Path

from hamgan.errors import ConfigError

OUTPUTS = (".png", ".gif", ".mp4", ".npz")
OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avi", ".mov", ".webm", ".npy", ".zip")


def check_parents(path: Path, option: str = "--output") -> None:
    """Raise ConfigError if a parent of an output path is a file."""
    for above in path.parents:
        if above.is_file():
            raise ConfigError(f"{path}: {above} is a file, not a folder; choose another {option}")


def check_file(path: str | Path, option: str = "--output", endings: tuple[str, ...] = ("",)) -> Path:
    """Return the path of an output; ConfigError unless it can be a file with one of these endings."""
    path = Path(path)
    if not path.name.lower().endswith(endings):
        raise ConfigError(f"{option} {path} must end in {' or '.join(endings)}")
    check_parents(path, option)
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file")
    return path


def check_output(path: Path, force: bool = False) -> None:
    """Raise ConfigError for an unknown format or an existing output that must not be replaced.

    With ``force`` files may be replaced, and folders that contain only .png files.
    """
    kind = path.suffix.lower()
    if kind in OTHER_FORMATS:
        raise ConfigError(
            f"{path}: sheets are written as .png, animations as .gif or .mp4, arrays as .npz; "
            "a name without an ending is a folder of .png files"
        )
    check_parents(path)
    empty_folder = path.is_dir() and kind not in OUTPUTS and not any(path.iterdir())
    if not path.exists() or empty_folder:
        return
    if not force:
        raise ConfigError(f"{path} exists already; choose another --output, or add --force to replace it")
    others = [item.name for item in path.iterdir() if item.suffix != ".png"] if path.is_dir() else []
    if others:
        raise ConfigError(f"{path} is a folder with {others[0]} in it; --force replaces folders of .png files alone")
