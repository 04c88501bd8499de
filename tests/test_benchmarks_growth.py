"""benchmark.py growth: one thing changes at a time, and the arithmetic grows as it must."""

import json
from pathlib import Path

import pytest

from hamgan.benchmarks.command import main
from hamgan.benchmarks.growth import BASE, make_variants
from hamgan.config import ConfigError

SMALL = ["resolution=64", "generator.channels=2", "discriminator.channels=4", "generator.latent_dim=10"]
SMALL += ["generator.class_embedding_dim=4", "data.num_classes=3", "generator.hamburger.rank=4"]
SMALL += ["train.precision=fp32", "generator.context_resolutions=[16]", "discriminator.context_resolutions=[16]"]


def test_every_variant_changes_one_thing() -> None:
    variants = {one.name: one for one in make_variants(None, SMALL, 4)}
    base = variants.pop(BASE)
    assert base.batch == 4
    assert base.config.generator.context_resolutions == base.config.discriminator.context_resolutions == [32]
    assert list(variants) == [
        "batch 2",
        "batch 8",
        "widths 4 and 8",
        "32 px",
        "128 px",
        "context 16",
        "no context block",
    ]
    assert [variants[name].batch for name in ("batch 2", "batch 8")] == [2, 8]
    assert all(variants[name].config == base.config for name in ("batch 2", "batch 8"))
    assert variants["widths 4 and 8"].config.discriminator.channels == 8
    wide = variants["128 px"].config
    assert (wide.resolution, wide.generator.latent_dim, wide.generator.context_resolutions) == (128, 12, [64])
    assert variants["context 16"].config.discriminator.context_resolutions == [16]


@pytest.mark.slow
def test_the_report_compares_time_with_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "growth.json"
    main(["growth", *f"--batch 2 --rounds 1 --threads 1 --device cpu --json {file} --set".split(), *SMALL])
    assert "batch 4: " in capsys.readouterr().out
    flops = json.loads(file.read_text())["figures"]["flops"]
    assert flops["batch 4"] == pytest.approx(2 * flops[BASE], rel=0.01)
    assert 3 < flops["128 px"] / flops[BASE] < 6
    assert flops["no context block"] < flops["context 16"] < flops[BASE]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("--batch 3", "--batch is 3; it must be an even number"), ("--set train.loss=relativistic", "relativistic pairs")],
)
def test_bad_usage_is_a_sentence(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["growth", *arguments.split()])
