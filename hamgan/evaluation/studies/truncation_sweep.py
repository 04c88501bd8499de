"""Draw FID against Inception Score over truncation (the curves of Brock et al. 2019, appendix D)."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hamgan.errors import ConfigError
from hamgan.evaluation.evaluator import evaluate_parts
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.inputs.samples import Samples, load_samples
from hamgan.evaluation.protocol import TRUNCATIONS, Protocol, protocol_line
from hamgan.evaluation.reference import Reference
from hamgan.evaluation.report import save_table
from hamgan.evaluation.statistics import Resources
from hamgan.files import JsonObject


def truncation_sweep(
    samples: Samples,
    reference: Reference | None,
    protocol: Protocol,
    resources: Resources,
    truncations: Sequence[float] = TRUNCATIONS,
) -> list[JsonObject]:
    """Return one row of the protocol's numbers (FID and IS) per truncation, with the generator loaded once.

    Raises ConfigError if the samples are a fixed set of images.
    """
    generator = load_samples(samples, protocol, resources.extractor.device)
    if isinstance(generator, Images):
        raise ConfigError(f"{samples} is a fixed set of images; a truncation sweep needs a generator")
    if not resources.extractor.classes:
        raise ConfigError(f"a sweep draws FID over the Inception Score; features {protocol.features} give none")
    if not truncations:
        raise ConfigError("a truncation sweep needs at least one truncation")
    return [
        evaluate_parts(generator, reference, [(replace(protocol, truncation=truncation), resources)])
        for truncation in sorted(truncations)
    ]


def save_sweep(rows: Sequence[JsonObject], picture: Path) -> list[Path]:
    """Write the curve as PNG (with the protocol below it) and the rows as CSV; returns both paths."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    _draw(rows, picture)
    return [picture, save_table(rows, picture.with_suffix(".csv"))]


def sweep_protocol(rows: Sequence[JsonObject]) -> str:
    """Return one protocol for all rows, which differ in truncation only."""
    return protocol_line(rows[0], [row["truncation"] for row in rows])


def _draw(rows: Sequence[JsonObject], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fid_key = next(key for key in rows[0] if key.startswith("fid"))
    score_key = "inception_score" + fid_key[len("fid") :]
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.plot([row[score_key] for row in rows], [row[fid_key] for row in rows], marker="o")
    for row in rows:
        axes.annotate(f"{row['truncation']:g}", (row[score_key], row[fid_key]), (4, 4), textcoords="offset points")
    name = "" if fid_key == "fid" else f" ({rows[0]['extractor']})"
    axes.set(xlabel=f"Inception Score{name}", ylabel=f"FID{name}", title="Truncation sweep")
    axes.grid(alpha=0.3)
    figure.text(0.01, -0.02, "\n".join(textwrap.wrap(sweep_protocol(rows), 120)), fontsize=6, va="top")
    figure.savefig(picture, dpi=150, bbox_inches="tight")
    pyplot.close(figure)
