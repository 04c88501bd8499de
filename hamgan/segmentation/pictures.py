"""Find the pictures to segment and check the output folder, before anything is loaded. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from hamgan.data.finding.names import is_hidden
from hamgan.errors import ConfigError, DataError, hint_at
from hamgan.files import nearest_path
from hamgan.sampling.outputs import check_parents
from hamgan.segmentation.data.layouts import IMAGE_SUFFIXES


def find_pictures(places: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (name of the output, file) for files and the pictures in folders; DataError if there are none."""
    found: list[tuple[str, Path]] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"there is no picture and no folder at {place}{hint_at(nearest_path(place))}")
        if place.is_file():
            found.append((place.stem, place))
            continue
        paths = (path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        inside = sorted(path for path in paths if not is_hidden(path.name))
        if not inside:
            raise DataError(f"the folder {place} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        found += [(path.relative_to(place).with_suffix("").as_posix(), path) for path in inside]
    names = [name for name, _ in found]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{len(double)} pictures have the same name as another, such as `{double[0]}`; segment them separately"
        )
    return found


def check_folder(output: Path, force: bool) -> None:
    """Raise ConfigError for an output that is a file, or without ``force`` a folder that is not empty."""
    check_parents(output)
    if output.is_file():
        raise ConfigError(f"--output {output} is a file; name a folder")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise ConfigError(f"--output {output} holds files already; choose another, or add --force to write among them")
