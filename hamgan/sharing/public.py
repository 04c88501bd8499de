"""Cut the paths in a generator's metadata to file names before it is published."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from hamgan.config import Config
from hamgan.files import JsonObject
from hamgan.sampling import LoadedGenerator

PLACES = ("samples", "reference", "preset")
"""Entries of an evaluation that may be paths."""


def public_header(generator: LoadedGenerator) -> JsonObject:
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
    """Return the configuration without the paths of its data, its run and its initial weights."""
    return replace(
        config,
        run_dir=None,
        data=replace(
            config.data,
            source=public_name(config.data.source),
            selection=_optional(config.data.selection),
        ),
        train=replace(
            config.train,
            init_from=_optional(config.train.init_from),
            init_classes=public_name(config.train.init_classes),
        ),
        eval=replace(config.eval, reference=_optional(config.eval.reference)),
    )


def public_evaluation(row: JsonObject) -> JsonObject:
    """Return an evaluation without the paths of samples and reference, also in its protocols."""
    places = {key: place for key in PLACES if isinstance(place := row.get(key), str)}
    public = row | {key: public_name(place) for key, place in places.items()}
    if "protocols" in row:
        public["protocols"] = {key: public_line(line, places.values()) for key, line in row["protocols"].items()}
    return public | {"protocol": public_line(row["protocol"], places.values())}


def public_line(line: str, places: Iterable[str]) -> str:
    """Return the line of a protocol with each path in ``places`` cut to its last part.

    Paths are matched as whole words, since one may be as short as ``.``, which numbers contain too.
    """
    for place in places:
        name = public_name(place).replace("\\", r"\\")
        line = re.sub(rf"(?<!\S){re.escape(place)}(?![^\s/,;)])", name, line)
    return line


def public_name(place: str) -> str:
    """Return the last part of a path or URL, which may contain a user name or token; a hub's data set is unchanged."""
    if not place or place.startswith("hf:"):
        return place
    return Path(urlsplit(place).path if "://" in place else place).name or "."


def _optional(place: str | None) -> str | None:
    return None if place is None else public_name(place)
