"""Going back to the last good checkpoint of a run that has diverged; a kill in the middle of it loses nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hamgan.checkpoint import Progress, list_checkpoints, read_state, remove_after, state_text
from hamgan.config import MonitorConfig
from hamgan.distributed.group import from_main
from hamgan.errors import CheckpointError, Diverged
from hamgan.files import write_atomically


def rollback_target(folder: Path, progress: Progress, warn: Callable[[str], None]) -> Path | None:
    """The newest valid checkpoint of a time without suspicion, or None.

    Where the last rollback led to that same one and an older one is left, the older one: the trouble began before.
    """
    found: list[Path] = []
    for path in reversed(list_checkpoints(folder)):
        if float(path.name) > progress.images / 1000:  # damaged and passed over when the run was resumed
            continue
        try:
            suspicious = read_state(path)["progress"].get("monitor", {}).get("streak", 0)
        except CheckpointError as error:
            warn(f"passing over a checkpoint: {error}")
            continue
        if not suspicious:
            found.append(path)
        if len(found) == 2:
            break
    again = bool(progress.rollbacks and found) and progress.rollbacks[-1]["to"] == found[0].name
    return found[1] if again and len(found) == 2 else found[0] if found else None


def agreed_target(
    accelerator: Accelerator,
    settings: MonitorConfig,
    folder: Path,
    progress: Progress,
    what: str,
    warn: Callable[[str], None],
) -> Path:
    """The checkpoint that all processes are to go back to; `Diverged`, which begins with ``what``, when none is."""
    found = rollback_target(folder, progress, warn) if accelerator.is_main_process else None
    target = from_main(found)
    if target is None:
        raise Diverged(f"{what}; there is no checkpoint to go back to: try lower learning rates")
    if settings.action != "rollback":
        raise Diverged(f"{what}; the last good checkpoint is {target}")
    if progress.stream >= settings.max_rollbacks:
        raise Diverged(f"{what}; already rolled back {progress.stream} times; the last good one is {target}")
    return target


def rollback_record(progress: Progress, target: Path, reason: str, lr_factor: float) -> dict[str, Any]:
    """What is remembered of a rollback: nothing that a clock decides, so that a repetition is the same."""
    return {
        "from_kimg": progress.images / 1000,
        "to": target.name,
        "reason": reason,
        "stream": progress.stream + 1,
        "lr_factor": lr_factor,
    }


def commit_rollback(run: Path, target: Path, progress: Progress) -> None:
    """Make a rollback survive the process: first it is written into the checkpoint, then the newer ones go.

    Killed before the end, the run resumes from a newer checkpoint, diverges in the same way and comes here again.
    """
    state = read_state(target)
    write_atomically(target / "state.json", state_text(state | {"progress": vars(progress)}))
    lines = "".join(json.dumps(record) + "\n" for record in progress.rollbacks)
    write_atomically(run / "rollbacks.jsonl", lines)
    remove_after(run / "checkpoints", progress.images)
