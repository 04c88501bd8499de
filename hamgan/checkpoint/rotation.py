"""List, find and delete checkpoint folders."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hamgan.checkpoint.progress import checkpoint_name, position_of, read_state
from hamgan.config import CheckpointConfig
from hamgan.errors import CheckpointError
from hamgan.files import temporary_name


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and position_of(path.name) is not None]
    return sorted(found, key=lambda path: float(path.name))


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint; being killed meanwhile leaves nothing that looks like one."""
    shutil.rmtree(path.rename(temporary_name(path)))


def latest_checkpoint(folder: Path, warn: Callable[[str], object] = print) -> Path | None:
    """Return the newest checkpoint with right checksums, None if there is none; ``warn`` names damaged ones.

    Raises CheckpointError if there are checkpoints but none is valid.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            read_state(path)
        except CheckpointError as error:
            warn(f"skipping a checkpoint: {error}")
            continue
        return path
    if paths:
        raise CheckpointError(f"none of the {len(paths)} checkpoints in {folder} is valid")
    return None


def rotate(
    folder: Path, config: CheckpointConfig, ranking: Sequence[str], images_per_step: int = 1, newest: str = "9" * 20
) -> None:
    """Delete checkpoints that are neither among the newest, nor the first (best) of a ranking, nor milestones.

    A milestone is the first checkpoint at or after a multiple of ``milestone_kimg``, less than one step after it.
    ``newest`` is the one just written. Later ones were damaged and skipped and will be written again: they do not
    count.
    """
    paths = list_checkpoints(folder)
    known = {path.name for path in paths}
    best = [name for name in ranking if name in known][: config.keep_best]
    behind = [path.name for path in paths if float(path.name) <= float(newest)]
    keep = set(behind[-max(1, config.keep_last) :]) | set(best)
    for path in paths:
        images, interval = round(float(path.name) * 1000), round(config.milestone_kimg * 1000)
        milestone = interval > 0 and images % interval < images_per_step
        if path.name not in keep and not (milestone and path.name in behind):
            remove_checkpoint(path)


def remove_after(folder: Path, images: int) -> None:
    """Delete the checkpoints after a number of images, the newest first."""
    for path in reversed(list_checkpoints(folder)):
        if float(path.name) > float(checkpoint_name(images)):
            remove_checkpoint(path)
