"""Where a run stands: the counters in state.json, which carries a checksum of itself and of the tensors beside it."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hamgan.errors import CheckpointError
from hamgan.files import sha256


def checkpoint_name(images: int) -> str:
    """Folder name of a checkpoint after so many images: thousands, with a fraction where there is one."""
    return f"{images // 1000:08d}" + (f".{images % 1000:03d}" if images % 1000 else "")


@dataclass
class Progress:
    """Where a run stands; with the configuration it determines all that follows."""

    images: int = 0
    """Real images seen by D."""
    steps: int = 0
    """Steps of G."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    evaluation_seconds: float = 0.0
    """Time spent on evaluations, over all restarts."""
    fid: dict[str, float] = field(default_factory=dict)
    """FID by checkpoint name, for keeping the best."""
    monitor: dict[str, Any] = field(default_factory=dict)
    """What the monitor remembers of earlier rows."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """Every return to an earlier checkpoint: why, from where, to where."""

    @property
    def evaluation_share(self) -> float:
        """The evaluations' share of the time that they and training have taken so far, 0 to 1."""
        total = self.seconds + self.evaluation_seconds
        return self.evaluation_seconds / total if total else 0.0

    @property
    def stream(self) -> int:
        """Which stream of data and noise: a rollback goes on with the next one."""
        return len(self.rollbacks)

    @property
    def lr_factor(self) -> float:
        """What rollbacks have multiplied the learning rates by."""
        return math.prod(float(rollback["lr_factor"]) for rollback in self.rollbacks)


def state_text(state: dict[str, Any]) -> str:
    """state.json with a checksum of itself: with one digit flipped it would be as good JSON as before."""
    values = {key: value for key, value in state.items() if key != "checksum"}
    return json.dumps(values | {"checksum": _checksum(values)}, indent=1)


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint whose checksums hold; raises CheckpointError."""
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


def _check_progress(values: Any, file: Path) -> None:
    start = asdict(Progress())
    known = set(start)
    if not isinstance(values, dict) or not {"images", "steps"} <= set(values) <= known:
        raise CheckpointError(f"{file} is of another version: its progress should hold {', '.join(sorted(known))}")
    for name, value in values.items():
        kind = (int, float) if isinstance(start[name], float) else type(start[name])
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            raise CheckpointError(f"{file} is damaged: its {name} is {str(value)[:40]!r}")
