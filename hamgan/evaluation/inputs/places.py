"""Check that paths of samples and references exist, without importing torch."""

from pathlib import Path

from hamgan.data.finding.locations import check_location
from hamgan.errors import ConfigError, DataError, hint_at
from hamgan.sampling.places import nearest_place


def check_place_of_samples(path: str | Path) -> None:
    """Raise ConfigError, with the nearest existing path, if there are no samples at a path."""
    if not Path(path).exists():
        hint = hint_at(nearest_place(Path(path)))
        raise ConfigError(f"there is nothing at {path}: give a run, a checkpoint, a folder of images or an .npz{hint}")


def check_place_of_reference(reference: str | Path) -> None:
    """Raise ConfigError, with the nearest existing name or path, if there is no such reference."""
    try:
        check_location(str(reference))
    except DataError as error:
        raise ConfigError(f"there is no reference at {reference}: {error}") from error
