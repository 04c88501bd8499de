"""Write a training run as one HTML file that opens without a network: plots, sheets, figures, configuration."""

import base64
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from hamgan.checkpoint import read_class_names
from hamgan.config import Config, flat_config, load_config
from hamgan.config.reading import load_stored_config
from hamgan.errors import CheckpointError, one_line
from hamgan.evaluation.report import EXTREMES, describe_numbers
from hamgan.files import write_atomically
from hamgan.progress import duration
from hamgan.tracking.html.plots import lines_of, panel_data

MOST_SHEETS = 60
"""Sheets on the page; of more, evenly spaced ones are taken, the first and the last among them."""

WIDTH = 900
"""Pixels that a sheet is to have on the page."""
UPLOT = Path(__file__).with_name("uplot")


def write_report(run: str | Path, output: str | Path | None = None, preset: str | Path | None = None) -> Path:
    """Write RUN/report.html (or ``output``) about a run folder, still in training or not; returns the path.

    ``preset`` is the configuration file that the run's own is compared with (None: the default values). Raises
    CheckpointError where there is no run or a file of it is damaged, ConfigError for a preset that cannot be read.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is not a run folder: there is no {run / 'config.yaml'}")
    output = Path(output) if output else run / "report.html"
    config = load_stored_config(run / "config.yaml")
    loader = jinja2.PackageLoader("hamgan.tracking.html", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    values = _contents(run, config) | {"differences": _differences(config, load_config(preset))}
    values["preset"] = str(preset) if preset else "the default values"
    values["script"] = Path(__file__).with_name("plots.js").read_text()
    values["uplot"] = {path.suffix or path.name: path.read_text() for path in UPLOT.iterdir()}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, environment.get_template("template.html").render(values))
    return output


def _contents(run: Path, config: Config) -> dict[str, Any]:
    metrics, rollbacks = _rows(run / "metrics.jsonl"), _rows(run / "rollbacks.jsonl")
    marks = [float(row["from_kimg"]) for row in rollbacks if "from_kimg" in row]
    evaluations = _evaluations(_rows(run / "results.jsonl"))
    return {
        "name": config.name,
        "folder": str(run),
        "config": flat_config(config),
        "summary": _summary(run, config, metrics),
        "evaluations": evaluations,
        "best": _best(evaluations),
        "classes": _classes(evaluations),
        "demo": _picture(run / "demo.png") if (run / "demo.png").is_file() else None,
        "panels": [panel_data(title, lines) for title, lines in lines_of(metrics).items()],
        "marks": marks,
        "sheets": _sheets(run / "samples"),
        "rollbacks": rollbacks,
        "overrides": _rows(run / "overrides.jsonl"),
        "environments": _rows(run / "environment.jsonl"),
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSONL file, none where there is no file; leave out a last line that is still being written."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text().splitlines()
        rows = [json.loads(line) for line in lines[:-1]]
        with contextlib.suppress(ValueError):
            rows += [json.loads(line) for line in lines[-1:]]
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    if not all(isinstance(row, dict) and isinstance(row.get("kimg", 0.0), (int, float)) for row in rows):
        raise CheckpointError(f"{path} is damaged: not every line is a row of numbers by name")
    return rows


def _summary(run: Path, config: Config, metrics: Sequence[dict[str, Any]]) -> dict[str, str]:
    last: dict[str, Any] = next((row for row in reversed(metrics) if "seconds" in row), {})
    names = read_class_names(run) or []
    return {
        "images seen by D": f"{last.get('kimg', 0.0):,.1f} of {config.train.total_kimg:,g} thousand",
        "time in training": duration(float(last.get("seconds", 0.0))),
        "resolution": f"{config.resolution} px",
        "classes": f"{config.data.num_classes}" + (f": {', '.join(names[:20])}" if names else ""),
        "batch": f"{config.train.batch_size} images per step",
        "data": f"{config.data.source} ({config.data.split})",
        "context blocks": f"{config.generator.context} in G, {config.discriminator.context} in D",
    }


def _evaluations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return numbers as lines, protocol, position and FID of every evaluation that says where in the run it stands."""
    found = []
    for row in rows:
        if not isinstance(row.get("kimg"), (int, float)):
            continue
        fid = next((value for key, value in row.items() if key.startswith("fid") and isinstance(value, float)), None)
        extremes = {title: row[key] for name, title in EXTREMES.items() for key in row if key.startswith(name)}
        values = {"kimg": row["kimg"], "protocol": row.get("protocol", ""), "fid": fid, "extremes": extremes}
        values["numbers"] = describe_numbers({"extractor": ""} | row)
        values["size"] = [row.get(key) for key in ("num_samples", "reference_count", "extractor", "truncation")]
        found.append(values)
    return found


def _best(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the evaluation with the lowest FID among those of the largest protocol: others cannot be compared."""
    with_fid = [row for row in evaluations if row["fid"] is not None]
    if not with_fid:
        return None
    largest = max(with_fid, key=lambda row: (row["size"][0] or 0, row["size"][1] or 0))
    return min((row for row in with_fid if row["size"] == largest["size"]), key=lambda row: row["fid"])


def _classes(evaluations: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return best and worst classes as the newest evaluation has them that compares classes."""
    return next((row["extremes"] for row in reversed(evaluations) if row["extremes"]), {})


def _sheets(folder: Path) -> list[dict[str, str]]:
    """Return sample sheets as data URLs, with where in the run they stand."""
    paths = sorted(folder.glob("*.png"))
    if len(paths) > MOST_SHEETS:
        paths = [paths[round(index * (len(paths) - 1) / (MOST_SHEETS - 1))] for index in range(MOST_SHEETS)]
    return [{"kimg": f"{float(path.stem):g}", **_picture(path)} for path in paths]


def _picture(path: Path) -> dict[str, Any]:
    """Return a picture as a data URL, and the width to show it at: a whole multiple of its own, if it is small."""
    content = io.BytesIO()
    try:
        with Image.open(path) as image:
            width = image.width * max(1, round(WIDTH / image.width))
            image.convert("RGB").save(content, "WEBP", lossless=True, quality=20)  # two thirds of a PNG
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from error
    return {"url": f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}", "width": width}


def _differences(config: Config, preset: Config) -> list[tuple[str, object, object]]:
    """Return key, value of the preset and value of the run, where they differ."""
    ours, theirs = flat_config(config), flat_config(preset)
    keys = [key for key in ours if ours[key] != theirs[key] and key not in ("name", "run_dir")]
    return [(key, theirs[key], ours[key]) for key in keys]
