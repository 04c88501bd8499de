"""FID against Inception Score over truncation (the curves of Brock et al. 2019, appendix D)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.evaluator import evaluate
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.samples import load_samples
from hamgan.evaluation.protocol import Protocol, protocol_line
from hamgan.evaluation.report import save_table

TRUNCATIONS = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def truncation_sweep(
    samples: Any,
    reference: Any,
    extractor: FeatureExtractor,
    truncations: Sequence[float] = TRUNCATIONS,
    **options: Any,
) -> list[dict[str, Any]]:
    """One row of `evaluate` (FID and IS) per truncation, with the generator and the extractor loaded once.

    Raises ConfigError where the samples are not a generator's.
    """
    choices = {name: options[name] for name in ("ema", "batch_norm", "seed") if name in options}
    generator = load_samples(samples, Protocol(**choices), extractor.device, options.get("batch_size", 64))
    if not callable(generator):
        raise ConfigError(f"{samples} is a fixed set of images; a truncation sweep needs a generator")
    if not truncations:
        raise ConfigError("a truncation sweep needs at least one truncation")
    return [
        evaluate(generator, reference, ("fid", "is"), extractor=extractor, truncation=truncation, **options)
        for truncation in sorted(truncations)
    ]


def save_sweep(rows: Sequence[dict[str, Any]], picture: str | Path) -> list[Path]:
    """Write the curve as PNG (with the protocol below it) and the rows as CSV beside it; returns both paths."""
    picture = Path(picture)
    table = picture.with_suffix(".csv")
    if not Processes.current().is_main:
        return [picture, table]
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_table(rows, table)
    _draw(rows, picture)
    return [picture, table]


def sweep_protocol(rows: Sequence[dict[str, Any]]) -> str:
    """The one line for all rows: they differ in truncation only."""
    return protocol_line(rows[0], [row["truncation"] for row in rows])


def _draw(rows: Sequence[dict[str, Any]], picture: Path) -> None:
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
    axes.set_xlabel(f"Inception Score{name}")
    axes.set_ylabel(f"FID{name}")
    axes.set_title("Truncation sweep")
    axes.grid(alpha=0.3)
    figure.text(0.01, -0.02, _wrapped(sweep_protocol(rows)), fontsize=6, va="top")
    figure.savefig(picture, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def _wrapped(text: str, width: int = 120) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
