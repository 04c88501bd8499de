"""Hold the progress of a run, stored in state.json with checksums of itself and of the tensors."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from hamgan.errors import CheckpointError
from hamgan.files import JsonObject, sha256


def checkpoint_name(images: int) -> str:
    """Return the folder name of a checkpoint: thousands of images, with a fraction if needed."""
    return f"{images // 1000:08d}" + (f".{images % 1000:03d}" if images % 1000 else "")


def position_of(name: str) -> int | None:
    """Return the number of images behind a `checkpoint_name`, None for any other name."""
    found = re.fullmatch(r"(\d{8,})(?:\.(\d{3}))?", name)
    return None if found is None else 1000 * int(found[1]) + int(found[2] or 0)


class Rollback(TypedDict):
    """Record a rollback, without times, so that repeating it gives the same record."""

    from_kimg: float
    to: str
    reason: str
    stream: int
    lr_factor: float


class MonitorMemory(TypedDict, total=False):
    """Hold the state of the collapse monitor."""

    streak: int
    """Number of consecutive suspicious rows up to the last one."""
    history: dict[str, list[float]]
    """Recent values of each series."""


@dataclass
class Progress:
    """Hold the progress of a run, which together with the configuration determines everything that follows.

    Loop, monitor, checkpoints and log share one object, so restoring it resets all of them.
    """

    images: int = 0
    """Real images seen by D."""
    steps: int = 0
    """Steps of G."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    evaluation_seconds: float = 0.0
    """Time spent on evaluations, over all restarts."""
    fid: dict[str, float] = field(default_factory=dict)
    """FID by checkpoint name, for keeping the best: the lowest."""
    miou: dict[str, float] = field(default_factory=dict)
    """mIoU of a segmenter by checkpoint name, for keeping the best: the highest."""
    measured: str = ""
    """Protocol of these scores, by `way_of_measuring`; scores of another protocol are never compared with them."""
    superseded: list[str] = field(default_factory=list)
    """Checkpoints that were measured with an earlier protocol, the best first."""
    monitor: MonitorMemory = field(default_factory=MonitorMemory)
    """State of the collapse monitor."""
    rollbacks: list[Rollback] = field(default_factory=list)
    """Every return to an earlier checkpoint."""

    def restore(self, saved: "Progress") -> None:
        """Take over all values of another one, in place."""
        vars(self).update(vars(saved))

    def measure_by(self, way: str) -> bool:
        """Start new scores if the protocol ``way`` differs from the current one; returns whether it does."""
        changed = self.measured not in ("", way)
        if changed:
            self.superseded, self.fid, self.miou = self.ranking, {}, {}
        self.measured = way
        return changed

    @property
    def ranking(self) -> list[str]:
        """Return the names of all evaluated checkpoints, the best first (lowest FID or highest mIoU).

        Those measured with an earlier protocol come last.
        """
        scores = self.fid or {name: -score for name, score in self.miou.items()}
        return [*sorted(scores, key=lambda name: scores[name]), *self.superseded]

    @property
    def evaluation_share(self) -> float:
        """Return the evaluations' share of the time that they and training have taken so far, 0 to 1."""
        total = self.seconds + self.evaluation_seconds
        return self.evaluation_seconds / total if total else 0.0

    @property
    def stream(self) -> int:
        """Return the number of the current stream of data and noise; every rollback starts the next one."""
        return len(self.rollbacks)

    @property
    def lr_factor(self) -> float:
        """Return the product of the learning-rate factors of all rollbacks."""
        return math.prod(float(rollback["lr_factor"]) for rollback in self.rollbacks)

    @property
    def suspicious(self) -> bool:
        """Return whether the last row was suspicious, so that a checkpoint of now is not good for a rollback."""
        return bool(self.monitor.get("streak"))


def state_text(state: JsonObject) -> str:
    """Return the text of a state.json with a checksum of itself, which detects changed digits."""
    values = {key: value for key, value in state.items() if key != "checksum"}
    return json.dumps(values | {"checksum": _checksum(values)}, indent=1)


def _checksum(values: JsonObject) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_state(path: Path) -> JsonObject:
    """Read the state.json of a checkpoint; CheckpointError unless the checksums of both files are right."""
    file = path / "state.json"
    try:
        state = json.loads(file.read_text())
        digest = sha256(path / "state.safetensors")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is incomplete: {error}") from error
    if not isinstance(state, dict) or digest != state.get("sha256"):
        raise CheckpointError(f"{path}/state.safetensors is damaged: its sha256 is not the one in state.json")
    if state.pop("checksum", None) != _checksum(state):
        raise CheckpointError(f"{file} is damaged: its content is not what its checksum says")
    if not {"progress", "scaler"} <= set(state):
        raise CheckpointError(f"{file} is damaged: it does not say where the run stands")
    _check_progress(state["progress"], file)
    return state


def read_progress(path: Path) -> Progress:
    """Read the progress in a checkpoint; CheckpointError as in `read_state`."""
    return Progress(**read_state(path)["progress"])


def _check_progress(values: object, file: Path) -> None:
    start = asdict(Progress())
    if not isinstance(values, dict) or not {"images", "steps"} <= set(values) <= set(start):
        raise CheckpointError(f"{file} is of another version: its progress should hold {', '.join(sorted(start))}")
    for name, value in values.items():
        kind = (int, float) if isinstance(start[name], float) else type(start[name])
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            raise CheckpointError(f"{file} is damaged: its {name} is {str(value)[:40]!r}")
