"""Check the share of a GPU's arithmetic that a run uses."""

from pathlib import Path

import pytest
from support.small_runs import small_config

from hamgan.evaluation.studies.cost import count_flops_per_image
from hamgan.tracking.utilisation import Arithmetic, count_arithmetic, peak_tflops
from hamgan.training.setup import make_accelerator

pytestmark = pytest.mark.usefixtures("new_accelerator")


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_gpus_are_known_by_their_names(name: str, half: float) -> None:
    peaks = peak_tflops(name)
    assert peaks is not None
    assert peaks[0] == half
    assert peaks[0] > peaks[1] >= peaks[2]


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "X",
    ],
)
def test_other_chips_have_no_peak(name: str) -> None:
    assert peak_tflops(name) is None


def test_utilisation_is_the_flops_of_all_images_over_the_peak_of_all_gpus() -> None:
    assert Arithmetic(flops_per_image=2e9, gpus=4, peak=1e12).at(600) == {"tflops_per_second": 0.3, "mfu": 0.3}


def test_an_unknown_device_has_a_speed_and_no_utilisation(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.num_classes=5")
    arithmetic = count_arithmetic(config, make_accelerator(config))
    flops = count_flops_per_image(config)[1]
    assert flops > 1e6
    assert arithmetic.at(100) == {"tflops_per_second": pytest.approx(100 * flops / 1e12)}
