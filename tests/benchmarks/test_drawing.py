"""Test ``python -m benchmarks sample``: every form draws the same images, and the report says how fast."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.sample import BARE, DRAWING, PLAIN, WHOLE, make_forms
from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.networks import build_networks

CONTEXTS = ["generator.context_resolutions=[16]", "discriminator.context_resolutions=[16]"]
SMALL = ["resolution=32", "generator.channels=2", "discriminator.channels=2", *CONTEXTS, "data.num_classes=5"]


def test_all_forms_draw_the_same_images() -> None:
    network = build_networks(load_config(None, SMALL))[0]
    z, labels = torch.randn(6, network.config.latent_dim), torch.arange(6) % 5
    with torch.no_grad():
        network(z, labels)  # statistics that are not those of a new network
        network.eval()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        images = {name: form(z, labels) for name, form in make_forms(network).items()}
    assert list(images) == [PLAIN, "trained", "folded", DRAWING]
    assert images[PLAIN].std() > 0.01
    assert all((value - images[PLAIN]).abs().max() < 1e-5 for value in images.values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_report_compares_forms_and_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sample.json"
    options = f"--batch 2 --images 5 --rounds 2 --threads 1 --device cpu --json {file} --set {' '.join(SMALL)}"
    main(["sample", *options.split()])
    printed = capsys.readouterr().out
    assert "times the images/s of the plain form" in printed
    assert "The whole command reaches" in printed
    figures = json.loads(file.read_text())["figures"]
    assert figures["forms"]["flops"][DRAWING] < figures["forms"]["flops"][PLAIN]
    assert set(figures["command"]["seconds"]) == {BARE, WHOLE}


def test_bad_usage_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="--images: '0' is not a whole number of 1 or more"):
        main(["sample", "--images", "0"])
