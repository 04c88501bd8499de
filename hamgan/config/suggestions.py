"""Suggest keys for one that does not exist."""

import difflib
from collections.abc import Sequence

MEANINGS = {
    "amp": "train.precision",
    "aug": "train.augment",
    "bf16": "train.precision",
    "checkpoint_every": "checkpoint.every_kimg",
    "data": "data.source",
    "data_dir": "data.source",
    "dataset": "data.source",
    "epochs": "train.total_kimg",
    "fp16": "train.precision",
    "gamma": "train.r1_gamma",
    "image_size": "resolution",
    "iterations": "train.total_kimg",
    "iters": "train.total_kimg",
    "mirror": "data.flip",
    "num_epochs": "train.total_kimg",
    "outdir": "run_dir",
    "output": "run_dir",
    "size": "resolution",
    "snap": "checkpoint.every_kimg",
    "steps": "train.total_kimg",
    "tensorboard": "log.tracker",
    "wandb": "log.tracker",
    "workers": "train.threads",
}
"""Names that other trainers use -> keys of this project."""
ABBREVIATIONS = {"lr": "learning_rate", "g": "generator", "d": "discriminator", "num": "number", "bs": "batch_size"}


def unknown_key(key: str, known: Sequence[str], where: str) -> str:
    """Return the error for a key that does not exist, with the nearest ones."""
    near = nearest_keys(key, known)
    hint = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
    return f"unknown key `{key}` in {where}{hint}"


def nearest_keys(key: str, known: Sequence[str]) -> list[str]:
    """Return up to three keys for a wrong one: by its last part, by its words, by what others call it, by its letters.

    `train.batch_size` for ``train.batchsize``, all keys that end in ``lr`` for ``train.lr``, `data.flip` for
    ``mirror``. Keys of the section that was named come first.
    """
    section, _, last = key.rpartition(".")
    ordered = sorted(known, key=lambda name: name.rpartition(".")[0] != section)  # stable
    for ending in (f".{last}", f"_{last}"):
        if found := [name for name in ordered if f".{name}".endswith(ending)]:
            return found[:3]
    if last.lower() in MEANINGS and MEANINGS[last.lower()] in known:
        return [MEANINGS[last.lower()]]
    words = _words(last)
    holding = [name for name in ordered if words <= _words(name)]
    inside = [name for name in holding if name.rpartition(".")[0] == section]
    if inside or holding:
        return (inside or holding)[:3]
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.6):
        return near
    lasts = [name.rpartition(".")[2] for name in ordered]
    nearest = difflib.get_close_matches(last, lasts, n=1, cutoff=0.6)
    return [name for name in ordered if name.rpartition(".")[2] in nearest][:3]


def _words(name: str) -> set[str]:
    """Return the words of a key including its sections, with abbreviations expanded."""
    text = name.lower().replace("-", "_").replace(".", "_")
    parts = "_".join(ABBREVIATIONS.get(word, word) for word in text.split("_"))
    return set(parts.split("_"))
