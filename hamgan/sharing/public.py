"""Remove from a generator that leaves the machine where its files lie; their names stay."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hamgan.checkpoint import Evaluation
from hamgan.config import Config
from hamgan.sampling import LoadedGenerator

PLACES = ("samples", "reference", "preset")
"""Entries of an evaluation that may be paths."""


def public_header(generator: LoadedGenerator) -> dict[str, Any]:
    """Return arguments of `save_generator` for a loaded generator; paths are cut to their last part."""
    extra = generator.header | {
        "evaluations": [public_evaluation(row) for row in generator.evaluations],
        "ema": generator.is_average,
        "batch_norm": generator.batch_norm,
        "folded": True,
    }
    config = public_config(generator.config)
    return {"config": config, "class_names": generator.class_names, "kimg": generator.kimg, "extra": extra}


def public_config(config: Config) -> Config:
    """Return the configuration without the places of its data, its run and the weights that it started from."""
    return replace(
        config,
        run_dir=None,
        data=replace(config.data, source=public_name(config.data.source)),
        train=replace(
            config.train,
            init_from=_optional(config.train.init_from),
            init_classes=public_name(config.train.init_classes),
        ),
        eval=replace(config.eval, reference=_optional(config.eval.reference)),
    )


def public_evaluation(row: Evaluation) -> Evaluation:
    """Return an evaluation without the places of samples and reference, also in the line of its protocol."""
    public, protocol = dict(row), str(row["protocol"])
    for key in PLACES:
        if isinstance(place := row.get(key), str):
            public[key] = public_name(place)
            protocol = protocol.replace(place, public_name(place))
    return public | {"protocol": protocol}


def public_name(place: str) -> str:
    """Return the last part of a path or address, which may hold a name or a token; a hub's data set as it is."""
    return place if place.startswith("hf:") else Path(urlsplit(place).path if "://" in place else place).name


def _optional(place: str | None) -> str | None:
    return None if place is None else public_name(place)
