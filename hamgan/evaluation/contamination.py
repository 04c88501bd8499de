"""Report whether training used networks like those that measure it, which flatters (Kynkäänniemi et al. 2023).

A number is flattering if its network was trained on the same data and labels as a network that D, the selection of
images or the choice of the checkpoint used. So every protocol names these, and a metric of another family is added to
FID.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from hamgan.checkpoint import Choice, describe_choice, independent_seed
from hamgan.config import OWN_EXTRACTORS
from hamgan.distributed.group import from_main
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import ARCHITECTURES, Family
from hamgan.evaluation.features.weights import PublishedWeights, find_weights
from hamgan.evaluation.inputs.samples import Samples
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import Reference, is_statistics_file
from hamgan.sampling import LoadedGenerator

Use = dict[str, str]
"""Plain values: ``role`` of a pretrained network in training, its ``network``, ``family`` and what it ``saw``."""
BESIDE_FID = ("clip_fid", "fd_dinov2")
"""Numbers that may stand beside FID, the cheaper one first: CLIP's network costs less than Inception."""


def uses_in_training(samples: Samples) -> list[Use] | None:
    """List the pretrained networks that a generator's training used; None where that is not recorded."""
    if not isinstance(samples, LoadedGenerator) or samples.header.get("converted_from"):
        return None
    uses = []
    if selected := re.search(r" by ([\w-]+):", samples.config.data.selected or ""):
        uses.append(_use("selection of the images", selected[1]))
    if choice := choice_of(samples):
        uses.append(_use("choice of the checkpoint", choice["network"]))
    return uses


def choice_of(samples: Samples) -> Choice | None:
    """Return by which number a generator's checkpoint was chosen, see `find_choice`; None if it was not."""
    if not isinstance(samples, LoadedGenerator):
        return None
    return next((cast(Choice, row["chosen"]) for row in samples.evaluations if row.get("chosen")), None)


def _use(role: str, network: str) -> Use:
    family = next((item.family for name, item in ARCHITECTURES.items() if network in (name, item.label)), None)
    family = family or Family("unknown networks", "unknown data")
    return {"role": role, "network": network, "family": family.name, "saw": family.saw}


def notes_on_same_family(family: Family, uses: Sequence[Use] | None) -> list[str]:
    """Return a note for each network of the measuring family that was used in training."""
    return [
        f"the {use['role']} used {use['network']}, of the same family ({family.name}) as the network that measures, "
        "whose numbers therefore flatter; trust those of another family"
        for use in uses or ()
        if use["family"] == family.name
    ]


def add_metric_beside_fid(
    protocol: Protocol, reference: Reference | None, write_line: Callable[[str], object]
) -> Protocol:
    """Add a metric of another family to FID if its weights are on this machine; all processes must call this.

    Nothing is downloaded. The reference must be images, because a file of statistics is of fixed networks.
    ``write_line`` gets a line about the addition.
    """
    has_images = isinstance(reference, str | Path) and not is_statistics_file(reference)
    if "fid" not in protocol.metrics or len(families_of(protocol)) > 1 or not has_images:
        return protocol
    beside = from_main(next((name for name in _candidates(protocol) if _is_here(name)), None))
    if beside is None:
        return protocol
    write_line(
        f"{beside} is measured beside FID: its network is of another family, and its weights are on this machine"
    )
    return replace(protocol, metrics=[*protocol.metrics, beside])


def avoid_chosen_samples(
    protocol: Protocol, samples: Iterable[Samples], write_line: Callable[[str], object]
) -> Protocol:
    """Use other seeds than those that chose the checkpoints; ``write_line`` gets a line about them."""
    choices = [choice for choice in map(choice_of, samples) if choice]
    if not choices or protocol.seed != Protocol.seed:
        return protocol
    seed = max(independent_seed(choice, protocol.num_samples) for choice in choices)
    write_line(f"seed {seed}, for other samples than those of the choice: {'; '.join(map(describe_choice, choices))}")
    return replace(protocol, seed=seed)


def families_of(protocol: Protocol) -> set[str]:
    """Return the families of the networks that a protocol uses."""
    return {ARCHITECTURES[part.features].family.name for part in protocol.by_extractor()}


def notes_on_single_family(families: Iterable[str], protocol: Protocol) -> list[str]:
    """Return a note if all numbers are of one family, with the metrics that would add another."""
    if "fid" not in protocol.metrics or len(set(families)) > 1:
        return []
    checks = " or ".join(f"{name} (weights by ${_weights(name).variable})" for name in _candidates(protocol))
    return [f"all numbers are by {next(iter(families))}; {checks} would check FID by another family"]


def _candidates(protocol: Protocol) -> list[str]:
    own = ARCHITECTURES[protocol.features].family
    return [name for name in BESIDE_FID if ARCHITECTURES[OWN_EXTRACTORS[name][0]].family != own]


def _weights(metric: str) -> PublishedWeights:
    weights = ARCHITECTURES[OWN_EXTRACTORS[metric][0]].weights
    assert isinstance(weights, PublishedWeights)
    return weights


def _is_here(metric: str) -> bool:
    try:
        find_weights(_weights(metric), allow_download=False)
    except ConfigError:
        return False
    return True
