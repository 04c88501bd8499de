"""Check the table of equality on few images: it needs every package of the development requirements."""

import argparse
from pathlib import Path

import pytest

from benchmarks.equality import PACKAGES, run
from benchmarks.report import Report
from hamgan.errors import ConfigError


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("docs") / "benchmarks.md"
    file.write_text("# Page\n\n<!-- equality -->\nold\n<!-- end of equality -->\n\nmore\n")
    return file


@pytest.fixture(scope="module")
def report(page: Path) -> Report:
    for name in PACKAGES:
        pytest.importorskip(name, exc_type=ImportError)
    return run(argparse.Namespace(images=12, docs=page))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_number_equals_its_package_and_that_of_two_processes(report: Report, page: Path) -> None:
    assert len(report.figures) == 15
    for name, found in report.figures.items():
        assert found["difference"] < 1e-3, name
        assert found["processes"] < 1e-6, name
    assert all(report.figures[f"{name} fid"]["ours"] > 1e-3 for name in ("inception", "dinov2-vit-l-14"))
    text = page.read_text()
    assert text.startswith("# Page\n\n<!-- equality -->\n\n12 real images a side")
    assert text.endswith("<!-- end of equality -->\n\nmore\n")
    assert "| FD-DINOv2 " in text
    assert "old" not in text


def test_too_few_images_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="--images is 5; the Inception Score"):
        run(argparse.Namespace(images=5, docs=None))
