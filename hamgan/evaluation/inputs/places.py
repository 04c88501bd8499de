"""Say that there is nothing at a place, before torch is imported and wherever one is opened."""

from pathlib import Path

from hamgan.data.finding.locations import check_place
from hamgan.errors import ConfigError, DataError, hint_at
from hamgan.sampling.places import nearest_place


def check_place_of_samples(path: str | Path) -> None:
    """Raise ConfigError, with the nearest path that exists, where there is nothing to measure."""
    if not Path(path).exists():
        hint = hint_at(nearest_place(Path(path)))
        raise ConfigError(f"there is nothing at {path}: give a run, a checkpoint, a folder of images or an .npz{hint}")


def check_place_of_reference(reference: str | Path) -> None:
    """Raise ConfigError, with the nearest that exists, where no reference can be meant."""
    try:
        check_place(str(reference))
    except DataError as error:
        raise ConfigError(f"there is no reference at {reference}: {error}") from error
