"""Read the files that wandb writes offline: wandb's own records, in the frames of LevelDB's log format."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

BLOCK = 32768
HEADER = struct.Struct("<IHB")


@dataclass
class OfflineRun:
    """Hold what one file says of a run."""

    id: str = ""
    project: str = ""
    entity: str = ""
    name: str = ""
    group: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By step."""
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    """Descriptions by name."""


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Read all offline runs in a folder such as RUN/wandb, in the order of time."""
    return [_read(path) for path in sorted(folder.glob("offline-run-*/run-*.wandb"))]


def ended_run(folder: Path) -> OfflineRun:
    """Read the last run in a folder; ends wandb's own process first, which writes its files to the end only then."""
    wandb.teardown()
    return offline_runs(folder)[-1]


def _read(path: Path) -> OfflineRun:
    found = OfflineRun()
    for record in _records(path.read_bytes()):
        if record.HasField("run"):
            run = record.run
            found.id, found.project, found.entity = run.run_id, run.project, run.entity
            found.name, found.group, found.tags = run.display_name, run.run_group, list(run.tags)
            found.config = _values(run.config.update)
        elif record.HasField("history"):
            found.history.setdefault(record.history.step.num, {}).update(_values(record.history.item))
        elif record.HasField("summary"):
            found.summary |= _values(record.summary.update)
        elif record.HasField("artifact"):
            found.artifacts[record.artifact.name] = record.artifact.description
    return found


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[Any]:
    position, record = 7, b""
    while position + HEADER.size <= len(data):
        if BLOCK - position % BLOCK < HEADER.size:  # too little is left of a block: it stays empty
            position += BLOCK - position % BLOCK
        _, size, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        record += data[position : position + size]
        position += size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""
