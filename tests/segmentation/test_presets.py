"""Check that every preset of a segmenter builds, with the published number of parameters."""

import json
import re
from pathlib import Path

import pytest
import torch
from support.paths import ROOT, golden_file

from hamgan.config import preset_names
from hamgan.errors import ConfigError
from hamgan.networks import count_parameters
from hamgan.segmentation import build_segmenter, load_config

FACTS = json.loads(golden_file("light_ham/facts.json").read_text())
# Recorded from the official code, or counted in it (the paper's HamNet; see docs/segmentation.md).
RECORDED = {
    f"{'light_ham' if 'light' in name else 'hamnet'}_van_{name.rpartition('van_')[2]}_ade20k": row["total"]
    for name, row in FACTS["light_ham_and_hamnet_van"].items()
} | {
    "hamnet_resnet101_ade20k": FACTS["hamnet_resnet101"]["rows"]["HamNet (concat_input False, with aux head)"]["total"],
    "hamnet_plus_resnet101_ade20k": FACTS["hamnet_resnet101"]["rows"]["HamNet+ (concat_input True, with aux head)"][
        "total"
    ],
    "hamnet_resnet101_pascal_context": 54_045_435,
}
PRESETS = sorted((ROOT / "configs/segmentation").glob("*.yaml"))


def parameters(name: str, *overrides: str) -> int:
    with torch.device("meta"):
        return count_parameters(build_segmenter(load_config(name, overrides)))


@pytest.mark.parametrize("name", RECORDED)
def test_a_published_network_has_its_number_of_parameters(name: str) -> None:
    assert parameters(name) == RECORDED[name]


def test_the_papers_hamnet_has_its_numbers_of_parameters() -> None:
    counts = {
        (version, classes): parameters(
            "hamnet_resnet101_pascal_context", f"head.hamburger.version={version}", f"data.num_classes={classes}"
        )
        for version in ("v1", "v2")
        for classes in (21, 59)
    }
    assert counts == {
        ("v1", 21): 53_773_525,
        ("v2", 21): 54_035_669,
        ("v1", 59): 53_783_291,
        ("v2", 59): 54_045_435,
    }


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_found_by_its_name_and_draws_logits(path: Path) -> None:
    config = load_config(path.stem, ["data.num_classes=8"])
    assert config.name == path.stem
    with torch.device("meta"):
        segmenter = build_segmenter(config).eval()
        logits = segmenter(torch.empty(1, 3, 64, 96)).main
    assert segmenter.resize_logits(logits, 64, 96).shape == (1, 8, 64, 96)


def test_every_row_has_its_preset_and_every_preset_its_row() -> None:
    assert {path.stem for path in PRESETS} == {*RECORDED, "land", "mosaic"} == set(preset_names("segmentation"))


def test_the_table_of_the_documentation_holds_these_numbers() -> None:
    text = (ROOT / "docs/segmentation.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \|", text, re.MULTILINE))
    assert rows == {name: f"{count:,}" for name, count in RECORDED.items()}


def test_presets_of_the_two_tasks_do_not_mix() -> None:
    with pytest.raises(ConfigError, match="no preset is called `photos`"):
        load_config("photos")
    with pytest.raises(ConfigError, match=r"did you mean `light_ham_van_base_ade20k`"):
        load_config("light_ham_van_bas_ade20k")
