"""Check where a generator may be, before anything is loaded or a hub is asked. Imports no torch."""

import difflib
import re
from pathlib import Path

from hamgan.errors import CheckpointError, hint_at
from hamgan.files import nearest_path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def check_place(text: str | Path) -> None:
    """Raise CheckpointError, with the nearest existing path, if a path does not exist and is no hub name.

    ``owner/name`` is a hub name unless a folder has nearly that path, such as ``runs/photos`` for ``run/photos``.
    """
    place = Path(text)
    if place.exists():
        return
    near = nearest_place(place)
    if near is None and is_hub_name(text):
        return
    raise CheckpointError(f"there is no checkpoint at {text}{hint_at(near)}")


def is_hub_name(text: str | Path) -> bool:
    """Return whether this may be a hub repository: ``owner/name`` without a local folder ``owner``."""
    return bool(HUB_ID.fullmatch(str(text))) and not Path(text).parent.is_dir()


def nearest_place(place: Path) -> Path | None:
    """Return the most similar existing path, or the run in ``runs/`` with a similar name; None if there is none."""
    return nearest_path(place) or (_run_called(place.name) if len(place.parts) == 1 else None)


def _run_called(name: str) -> Path | None:
    """Return the run in ``runs/`` with this or a similar name, or None."""
    names = [item.name for item in Path("runs").iterdir()] if Path("runs").is_dir() else []
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return Path("runs") / near[0] if near else None
