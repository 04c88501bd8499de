"""Write the model card, README.md of a repository, from the contents of the generator file alone."""

from typing import Any

import jinja2
import yaml

from hamgan.checkpoint import describe_choice, was_chosen_by
from hamgan.config import Config, GeneratorConfig, config_to_dict
from hamgan.data.opening import EMBEDDED
from hamgan.evaluation.report import numbers_of, other_protocols, protocol_of
from hamgan.files import JsonObject
from hamgan.networks import count_parameters
from hamgan.sampling import LoadedGenerator
from hamgan.sampling.hub import GENERATOR_FILE
from hamgan.sharing.public import public_config, public_evaluation

SHEET_FILE = "sheet.png"
SHEET_ROWS, SHEET_COLUMNS = 12, 8
MOST_NAMES = 100
"""Largest number of classes that a card lists."""
TASK = "unconditional-image-generation"
"""The nearest of the hub's tasks, which has none for class-conditional generation."""


def model_card(generator: LoadedGenerator, name: str, licence: str | None = None) -> str:
    """Return the card of a repository ``owner/name``: YAML for the hub, figures with their protocol, how to draw."""
    from huggingface_hub import ModelCard

    # A FID that chose the checkpoint is the lowest of several draws and is not quoted.
    evaluations = [public_evaluation(row) for row in generator.evaluations if not was_chosen_by(row)]
    chosen = next((row["chosen"] for row in generator.evaluations if row.get("chosen")), None)
    config, names = public_config(generator.config), generator.class_names
    converted = _describe_conversion(generator)
    stored = config_to_dict(config)
    if converted:  # the configuration describes only the network
        stored = {key: stored[key] for key in ("resolution", "generator")}
    values = {
        "metadata": _metadata(config, evaluations, name, licence),
        "title": name.rpartition("/")[2],
        "name": name,
        "resolution": config.resolution,
        "classes": generator.num_classes,
        "parameters": f"{count_parameters(generator.network):,}",
        "context": _describe_context(config.generator),
        "sheet": SHEET_FILE,
        "rows": SHEET_ROWS,
        "columns": SHEET_COLUMNS,
        "example": repr(names[0]) if names else "0",
        "class_names": generator.titles if names else [],
        "most_names": MOST_NAMES,
        "training": converted or _describe_training(generator, config),
        "chosen": describe_choice(chosen) if chosen else None,
        "evaluations": [row | {"numbers": numbers_of(row), "others": other_protocols(row)} for row in evaluations],
        "generator_file": GENERATOR_FILE,
        "config": yaml.safe_dump(stored, sort_keys=False).strip(),
        "licence": licence,
    }
    loader = jinja2.PackageLoader("hamgan.sharing", ".")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("model_card.md.jinja").render(values)
    return str(ModelCard(text)) + "\n"  # reads the YAML as the hub will


def _describe_context(network: GeneratorConfig) -> str:
    sizes = ", ".join(f"{size}x{size}" for size in network.context_resolutions)
    if network.context == "hamburger":
        block = network.hamburger
        return f"Hamburger {block.version} ({block.decomposition.upper()}, rank {block.rank}) at {sizes}"
    return "none" if network.context == "none" else f"self-attention at {sizes}"


def _describe_conversion(generator: LoadedGenerator) -> dict[str, str]:
    """Return the origin of converted weights; empty for others."""
    source = generator.header.get("converted_from")
    if not isinstance(source, dict):
        return {}
    return {"weights": f"converted from {source.get('kind')}; how they were trained is not recorded here"}


def _describe_training(generator: LoadedGenerator, config: Config) -> dict[str, str]:
    train = config.train
    facts = {"data": f"{config.data.source} ({config.data.split} split)"}
    if config.data.source in EMBEDDED:
        facts["data"] += f", {EMBEDDED[config.data.source].origin}"
    if generator.kimg is not None:
        facts["images seen by the discriminator"] = f"{generator.kimg * 1000:,.0f}"
    facts["batch"] = f"{train.batch_size} images, {train.discriminator_steps} discriminator step(s) per generator step"
    facts["loss"] = train.loss
    facts["learning rates"] = f"{train.generator_lr:g} (G), {train.discriminator_lr:g} (D), {train.lr_schedule}"
    weights = f"an average over training (decay {train.ema_decay:g})" if generator.is_average else "as trained"
    facts["weights"] = f"{weights}, {generator.batch_norm} batch-norm statistics"
    if train.init_from:
        facts["started from"] = train.init_from
    return facts


def _metadata(config: Config, evaluations: list[JsonObject], name: str, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    # The evaluation with most images comes first; its numbers are not repeated from smaller ones.
    results: dict[tuple[str, str], Any] = {}
    for result in (result for row in evaluations for result in _results(row)):
        results.setdefault((result.dataset_name, result.metric_type), result)
    source = config.data.source
    data = ModelCardData(
        license=licence or "unknown",
        library_name="hamgan",
        pipeline_tag=TASK,
        tags=["gan", "class-conditional", "image-generation"],
        datasets=[source.removeprefix("hf:").partition("@")[0]] if source.startswith("hf:") else None,
        model_name=name.rpartition("/")[2],
        eval_results=list(results.values()) or None,
    )
    return str(data.to_yaml())


def _results(row: JsonObject) -> list[Any]:
    """Return the numbers of an evaluation in the hub's format, each with its protocol."""
    from huggingface_hub import EvalResult

    reference, split = str(row.get("reference")), row.get("reference_split")
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=reference,
            dataset_name=f"{reference} ({split})" if split else reference,
            dataset_split=split,
            metric_type=number.key,
            metric_name=number.title,
            metric_value=number.value,
            metric_args={"protocol": protocol_of(row, number.key)},
        )
        for number in numbers_of(row)
        if not number.key.startswith("class_accuracy_real")  # of the data, not of this generator
    ]
