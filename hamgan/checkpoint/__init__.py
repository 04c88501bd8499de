"""Save and restore a run as safetensors and JSON, written whole or not at all, loaded without running code.

A checkpoint is a folder ``checkpoints/NAME``, where NAME is the number of images in thousands. It holds
``state.safetensors`` (both networks, the average of G, both optimisers) and ``state.json`` (counters and the sha256 of
the former).
"""

from hamgan.checkpoint.choice import Choice, describe_choice, independent_seed, was_chosen_by, way_of_measuring
from hamgan.checkpoint.evaluations import largest_first, read_evaluations
from hamgan.checkpoint.generator import (
    GENERATOR_FORMAT,
    generator_from_state,
    generator_metadata,
    load_generator_file,
    read_class_names,
    read_generator_config,
    record_evaluations,
    save_generator,
)
from hamgan.checkpoint.manager import CheckpointManager, RunCheckpoints
from hamgan.checkpoint.progress import Progress, checkpoint_name, read_state
from hamgan.checkpoint.rotation import latest_checkpoint, list_checkpoints
from hamgan.checkpoint.state import load_checkpoint, save_checkpoint

__all__ = [
    "GENERATOR_FORMAT",
    "CheckpointManager",
    "Choice",
    "Progress",
    "RunCheckpoints",
    "checkpoint_name",
    "describe_choice",
    "generator_from_state",
    "generator_metadata",
    "independent_seed",
    "largest_first",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "load_generator_file",
    "read_class_names",
    "read_evaluations",
    "read_generator_config",
    "read_state",
    "record_evaluations",
    "save_checkpoint",
    "save_generator",
    "was_chosen_by",
    "way_of_measuring",
]
