"""Checkpoints: safetensors and JSON, written whole or not at all, loaded without running any code.

A checkpoint is a folder ``checkpoints/NAME`` named by its thousands of images. It holds ``state.safetensors`` (both
networks, the average of G, both optimisers) and ``state.json`` (counters and the sha256 of the former).
"""

from hamgan.checkpoint.evaluations import Evaluation, evaluations_of_run, read_evaluations
from hamgan.checkpoint.generator import (
    GENERATOR_FORMAT,
    generator_from_state,
    generator_metadata,
    load_generator_file,
    read_class_names,
    record_evaluations,
    save_generator,
)
from hamgan.checkpoint.progress import Progress, checkpoint_name, read_state, state_text
from hamgan.checkpoint.rotation import latest_checkpoint, list_checkpoints, remove_after, rotate
from hamgan.checkpoint.state import (
    Snapshot,
    load_checkpoint,
    save_checkpoint,
    state_tensors,
    take_snapshot,
)
from hamgan.checkpoint.writer import CheckpointWriter
from hamgan.files import remove_leftovers

__all__ = [
    "GENERATOR_FORMAT",
    "CheckpointWriter",
    "Evaluation",
    "Progress",
    "Snapshot",
    "checkpoint_name",
    "evaluations_of_run",
    "generator_from_state",
    "generator_metadata",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_generator_file",
    "read_class_names",
    "read_evaluations",
    "read_state",
    "record_evaluations",
    "remove_after",
    "remove_leftovers",
    "rotate",
    "save_checkpoint",
    "save_generator",
    "state_tensors",
    "state_text",
    "take_snapshot",
]
