"""Write a training run as one HTML file that opens without a network: plots, sheets, figures, configuration."""

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from hamgan.checkpoint import read_class_names, way_of_measuring
from hamgan.checkpoint.choice import fid_key
from hamgan.config import Config, ConfigReader, flat_config
from hamgan.config.reading import GAN
from hamgan.errors import CheckpointError, one_line
from hamgan.evaluation.report import EXTREMES, numbers_of, other_protocols
from hamgan.files import JsonObject, write_atomically
from hamgan.progress import duration
from hamgan.tracking.html.plots import lines_of, panel_data
from hamgan.tracking.trackers import find_sheets

MOST_SHEETS = 60
"""Largest number of sheets on the page; more are thinned evenly, keeping the first and the last."""

WIDTH = 900
"""Intended width of a sheet on the page, in pixels."""
UPLOT = Path(__file__).with_name("uplot")


@dataclass(frozen=True)
class Kind:
    """Describe one kind of run for the page."""

    reader: ConfigReader[Any]
    facts: Callable[[Any], dict[str, str]]
    """Lines of the summary, from the configuration."""
    numbers: Callable[[JsonObject], dict[str, str]]
    """Figures of an evaluation by name, the deciding one first."""
    score: Callable[[JsonObject], float | None]
    """Score of an evaluation; the best one has the lowest."""
    best: str
    """Name of the best evaluation's figure."""
    size: tuple[str, ...]
    """Entries that define the size of an evaluation; the best one is chosen among those of the largest size."""
    evaluate: str
    """Command that makes an evaluation."""
    demo: str
    """Caption of ``demo.png``."""


def write_report(
    run: str | Path, output: str | Path | None = None, preset: str | Path | None = None, kind: Kind | None = None
) -> Path:
    """Write RUN/report.html (or ``output``) about a run, finished or not; returns the path.

    ``preset`` is a configuration file to compare the run's with (None: the default values), ``kind`` the kind of run
    (None: a GAN's). Raises CheckpointError if there is no run or a file of it is damaged, ConfigError for a preset that
    cannot be read.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is not a run folder: there is no {run / 'config.yaml'}")
    output = Path(output) if output else run / "report.html"
    if kind is None and re.search("^encoder:", (run / "config.yaml").read_text(errors="replace"), re.MULTILINE):
        raise CheckpointError(f"{run} is the run of a segmenter: hamgan segment report {run}")
    kind = kind or OF_A_GAN
    config = kind.reader.load_stored(run / "config.yaml")
    loader = jinja2.PackageLoader("hamgan.tracking.html", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    values = _contents(run, config, kind) | {"differences": _differences(config, kind.reader.load(preset))}
    values |= {"kind": kind, "of_a_gan": kind is OF_A_GAN}
    values["preset"] = str(preset) if preset else "the default values"
    values["script"] = Path(__file__).with_name("plots.js").read_text()
    values["uplot"] = {path.suffix or path.name: path.read_text() for path in UPLOT.iterdir()}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, environment.get_template("template.html").render(values))
    return output


def _contents(run: Path, config: Any, kind: Kind) -> JsonObject:
    metrics, rollbacks = _rows(run / "metrics.jsonl"), _rows(run / "rollbacks.jsonl")
    marks = [float(row["from_kimg"]) for row in rollbacks if "from_kimg" in row]
    evaluations = _evaluations(_rows(run / "results.jsonl"), kind)
    return {
        "name": config.name,
        "folder": str(run),
        "config": {key: _as_yaml(value) for key, value in flat_config(config).items()},
        "summary": _summary(run, config, metrics, kind),
        "evaluations": evaluations,
        "figures": list(dict.fromkeys(name for row in evaluations for name in row["numbers"])),
        "best": _best(evaluations),
        "classes": _classes(evaluations),
        "demo": _picture(run / "demo.png") if (run / "demo.png").is_file() else None,
        "panels": [panel_data(title, lines) for title, lines in lines_of(metrics).items()],
        "marks": marks,
        "sheets": _sheets(run),
        "rollbacks": rollbacks,
        "overrides": _rows(run / "overrides.jsonl"),
        "environments": _rows(run / "environment.jsonl"),
    }


def _rows(path: Path) -> list[JsonObject]:
    """Read the rows of a JSONL file, without an unfinished last line; empty if there is no file."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text().splitlines()
        rows = [json.loads(line) for line in lines[:-1]]
        with contextlib.suppress(ValueError):
            rows += [json.loads(line) for line in lines[-1:]]
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    # An evaluation of other pictures has no position in the run.
    if not all(isinstance(row, dict) and isinstance(row.get("kimg"), (int, float, type(None))) for row in rows):
        raise CheckpointError(f"{path} is damaged: not every line is a row of numbers by name")
    return rows


def _summary(run: Path, config: Any, metrics: Sequence[JsonObject], kind: Kind) -> dict[str, str]:
    last: JsonObject = next((row for row in reversed(metrics) if "seconds" in row), {})
    names = read_class_names(run) or []
    return {
        "images seen": f"{last.get('kimg', 0.0):,g} of {config.train.total_kimg:,g} thousand",
        "time in training": duration(float(last.get("seconds", 0.0))),
        "classes": f"{config.data.num_classes}" + (f": {', '.join(names[:20])}" if names else ""),
        "batch": f"{config.train.batch_size} images per step",
        "data": f"{config.data.source} ({config.data.split})",
        **kind.facts(config),
    }


def _facts(config: Config) -> dict[str, str]:
    return {
        "resolution": f"{config.resolution} px",
        "context blocks": f"{config.generator.context} in G, {config.discriminator.context} in D",
    }


def _fid(row: JsonObject) -> float | None:
    key = fid_key(row)
    return None if key is None else float(row[key])


def _evaluations(rows: Sequence[JsonObject], kind: Kind) -> list[JsonObject]:
    """Return figures, protocol, position and score of every evaluation with a position in the run.

    Repetitions with equal figures are listed once.
    """
    found = []
    for row in rows:
        if not isinstance(row.get("kimg"), (int, float)):
            continue
        extremes = {title: row[key] for name, title in EXTREMES.items() for key in row if key.startswith(name)}
        values = {
            "kimg": row["kimg"],
            "protocol": row.get("protocol", ""),
            "others": other_protocols(row),
            "score": kind.score(row),
            "extremes": extremes,
            "notes": row.get("notes", []),
            "warnings": row.get("warnings", []),
        }
        values["numbers"] = kind.numbers(row)
        values["size"] = [row.get(key) or 0 for key in kind.size]
        values["way"] = way_of_measuring({"protocol": ""} | row)
        if values not in found:
            found.append(values)
    return found


def _best(evaluations: Sequence[JsonObject]) -> JsonObject | None:
    """Return the best evaluation among those with the protocol of the newest of the largest size."""
    scored = [row for row in evaluations if row["score"] is not None]
    if not scored:
        return None
    largest = max(reversed(scored), key=lambda row: row["size"])
    return min((row for row in scored if row["way"] == largest["way"]), key=lambda row: row["score"])


def _classes(evaluations: Sequence[JsonObject]) -> dict[str, list[str]]:
    """Return best and worst classes of the newest evaluation that compares classes."""
    return next((row["extremes"] for row in reversed(evaluations) if row["extremes"]), {})


def _sheets(run: Path) -> list[dict[str, str]]:
    """Return sample sheets as data URLs, with their positions in the run."""
    sheets = list(find_sheets(run).items())
    if len(sheets) > MOST_SHEETS:
        sheets = [sheets[round(index * (len(sheets) - 1) / (MOST_SHEETS - 1))] for index in range(MOST_SHEETS)]
    return [{"kimg": f"{images / 1000:g}", **_picture(path)} for images, path in sheets]


def _picture(path: Path) -> JsonObject:
    """Return a picture as a data URL, and its width on the page, an integer multiple for small pictures."""
    content = io.BytesIO()
    try:
        with Image.open(path) as image:
            width = image.width * max(1, round(WIDTH / image.width))
            image.convert("RGB").save(content, "WEBP", lossless=True, quality=20)  # two thirds of a PNG
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    return {"url": f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}", "width": width}


def _differences(config: Any, preset: Any) -> list[tuple[str, str, str]]:
    """Return (key, value of the preset, value of the run) for all differences, as YAML."""
    ours, theirs = flat_config(config), flat_config(preset)
    keys = [key for key in ours if ours[key] != theirs[key] and key not in ("name", "run_dir")]
    return [(key, _as_yaml(theirs[key]), _as_yaml(ours[key])) for key in keys]


def _as_yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


OF_A_GAN = Kind(
    reader=GAN,
    facts=_facts,
    numbers=lambda row: {number.title: str(number) for number in numbers_of({"extractor": ""} | row)},
    score=_fid,
    best="lowest FID",
    size=("num_samples", "reference_count"),
    evaluate="hamgan evaluate",
    demo="Left: real images that the run has not seen. Right: generated images of the same classes, not selected.",
)
