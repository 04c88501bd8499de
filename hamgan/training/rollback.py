"""Return to the last good checkpoint of a run that has diverged, in a way that survives being killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hamgan.checkpoint import Progress, list_checkpoints, load_checkpoint, read_state
from hamgan.checkpoint.power_averages import remove_averages_after
from hamgan.checkpoint.progress import Rollback, read_progress, state_text
from hamgan.checkpoint.rotation import remove_after
from hamgan.checkpoint.state import TrainingState
from hamgan.config.runs import MonitorSettings
from hamgan.distributed.group import from_main, rank
from hamgan.errors import CheckpointError, Diverged
from hamgan.files import write_atomically


def find_good_checkpoint(folder: Path, progress: Progress, warn: Callable[[str], None]) -> Path | None:
    """Return the newest valid checkpoint that was saved without suspicious rows, or None.

    If the last rollback led to that one already, the next older one is returned: the trouble began before.
    """
    found: list[Path] = []
    for path in reversed(list_checkpoints(folder)):
        if float(path.name) > progress.images / 1000:  # damaged, and skipped when the run was resumed
            continue
        try:
            suspicious = read_progress(path).suspicious
        except CheckpointError as error:
            warn(f"skipping a checkpoint: {error}")
            continue
        if not suspicious:
            found.append(path)
        if len(found) == 2:
            break
    again = bool(progress.rollbacks and found) and progress.rollbacks[-1]["to"] == found[0].name
    return found[1] if again and len(found) == 2 else found[0] if found else None


def choose_checkpoint(
    settings: MonitorSettings, folder: Path, progress: Progress, reason: str, warn: Callable[[str], None]
) -> Path:
    """Choose the checkpoint for all processes to go back to; raises Diverged with the reason if there is none."""
    target = from_main(find_good_checkpoint(folder, progress, warn) if rank() == 0 else None)
    if target is None:
        raise Diverged(f"{reason}; there is no checkpoint to go back to: try lower learning rates")
    if settings.action != "rollback":
        raise Diverged(f"{reason}; the last good checkpoint is {target}")
    if progress.stream >= settings.max_rollbacks:
        raise Diverged(f"{reason}; already rolled back {progress.stream} times; the last good one is {target}")
    return target


def restore_earlier(target: Path, step: TrainingState, progress: Progress, reason: str, lr_factor: float) -> None:
    """Restore networks and progress from a checkpoint, but keep the time spent and the record of rollbacks."""
    kimg, stream = progress.images / 1000, progress.stream + 1
    record = Rollback(from_kimg=kimg, to=target.name, reason=reason, stream=stream, lr_factor=lr_factor)
    saved = replace(
        load_checkpoint(target, step),
        rollbacks=[*progress.rollbacks, record],
        seconds=progress.seconds,
        evaluation_seconds=progress.evaluation_seconds,
    )
    progress.restore(saved)


def commit_rollback(run: Path, target: Path, progress: Progress) -> None:
    """Make a rollback permanent: write it into the checkpoint, then delete the newer checkpoints.

    If the process is killed before the end, the run resumes from a newer checkpoint, diverges again and returns here.
    """
    state = read_state(target)
    write_atomically(target / "state.json", state_text(state | {"progress": vars(progress)}))
    lines = "".join(json.dumps(record) + "\n" for record in progress.rollbacks)
    write_atomically(run / "rollbacks.jsonl", lines)
    remove_averages_after(run / "averages", progress.images)
    remove_after(run / "checkpoints", progress.images)
