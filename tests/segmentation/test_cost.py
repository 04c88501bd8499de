"""Check multiplications against the recorded counts of the official code and against the published figures."""

import json

import pytest
from support.paths import golden_file

from hamgan.segmentation import load_config
from hamgan.segmentation.cost import Cost, measure_cost

FACTS = json.loads(golden_file("light_ham/facts.json").read_text())
ROWS = FACTS["light_ham_and_hamnet_van"]
R101 = {
    "hamnet_resnet101_ade20k": ("HamNet (concat_input False, with aux head)", 918),
    "hamnet_plus_resnet101_ade20k": ("HamNet+ (concat_input True, with aux head)", 1111),
}


def measured(row: str, *overrides: str) -> Cost:
    kind = "light_ham" if "light" in row else "hamnet"
    return measure_cost(load_config(f"{kind}_van_{row.rpartition('van_')[2]}_ade20k", overrides))


@pytest.mark.parametrize("row", ROWS)
def test_macs_of_networks_on_vans_are_the_published_ones(row: str) -> None:
    cost = measured(row)
    assert cost.published / 1e9 == pytest.approx(ROWS[row]["published"][1], rel=5e-3)
    # The recorded network had rank 16 where the published number of multiplications needs 32.
    recorded = measured(row, "head.hamburger.rank=16") if row == "hamnet_light_van_small_d256" else cost
    assert recorded.convolutions + recorded.products == round(ROWS[row]["flopcounter_macs_G"] * 1e9)
    assert recorded.published / 1e9 == pytest.approx(ROWS[row]["torchprofile_G"], rel=2e-4)


@pytest.mark.parametrize("preset", R101)
def test_macs_of_networks_on_resnet_are_the_published_ones(preset: str) -> None:
    name, published = R101[preset]
    cost = measure_cost(load_config(preset), 512, 2048)
    recorded = FACTS["hamnet_resnet101"]["rows"][name]["macs_512x2048_G_by_op"]
    assert cost.convolutions / 1e9 == pytest.approx(published, rel=5e-3)
    assert cost.convolutions == round(recorded["aten.convolution"] * 1e9)
    assert cost.products == round(recorded["aten.bmm"] * 1e9)


def test_convolving_the_bases_saves_what_the_algebra_says() -> None:
    cost = measured("hamnet_light_van_base")
    positions, channels, rank = 64 * 64, 512, 64
    first_projection = positions * channels * rank
    assert cost.saved == (positions - rank) * channels**2 + first_projection
    assert cost.spent == cost.convolutions + cost.products - cost.saved
    assert "spent here" in "\n".join(cost.lines())


def test_a_head_without_context_and_other_blocks_are_counted() -> None:
    plain = measure_cost(load_config("light_ham_van_tiny_ade20k", ["head.context=none"]))
    assert (plain.products, plain.saved) == (0, 0)
    vq = measured("hamnet_light_van_tiny", "head.hamburger.decomposition=vq", "head.hamburger.heads=2")
    assert vq.saved > 0
    v2 = measure_cost(load_config("hamnet_resnet101_pascal_context"))
    v1 = measure_cost(load_config("hamnet_resnet101_pascal_context", ["head.hamburger.version=v1"]))
    assert v2.convolutions - v1.convolutions == 64 * 64 * 512 * 512
