"""Test `hamgan report`: one file with everything about a run, opened in a real browser."""

import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from support.browser import chromium
from support.paths import ROOT
from support.small_runs import python, run_small

from hamgan.errors import CheckpointError, ConfigError
from hamgan.tracking.html.plots import MOST_POINTS, lines_of, panel_data, thinned
from hamgan.tracking.html.report import write_report
from hamgan.tracking.panels import NOTES, panel_of

OPTIONS = [
    "log.samples_every_kimg=0.016",
    "eval.every_kimg=0.04",
    "eval.metrics=[fid]",
    "eval.num_samples=8",
    "eval.reference_samples=8",
    "eval.features=efficientnet-lite0",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), *OPTIONS)


def page_in_a_browser(path: Path, script: str = "") -> str:
    """Return the page as Chromium has it after its scripts ran, without a network."""
    browser = chromium()
    copy = path.with_name(f"browser-{path.name}")
    copy.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", copy.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_report_holds_figures_plots_sheets_and_configuration(run: Path, tmp_path: Path) -> None:
    done = python(ROOT / "scripts/report.py", run, "--output", tmp_path / "new/report.html")
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "new/report.html").read_text()
    (evaluation,) = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert "<th>FID (efficientnet-lite0)</th></tr>" in page
    assert f"<td>{evaluation['fid_efficientnet_lite0']:.5g}</td></tr>" in page
    assert page.count(f"<small>{html.escape(evaluation['protocol'])}</small>") == 1
    assert page.count('<small class="warning">') == len(evaluation["warnings"]) > 0
    assert page.count("data:image/webp;base64,") == 2
    assert "The MIT License" in page  # of the library that draws the plots
    key = '<td class="value key">generator.<wbr>{}</td><td class="value">{}</td><td class="value">{}</td>'
    assert key.format("channels", 96, 2) in page
    assert "1 process on" in page
    assert '<th scope="row">images seen</th><td>0.04 of 0.04 thousand</td>' in page
    assert set(re.findall(r"\b(?:src|href)=\"?([a-z]+):", page)) == {"data"}
    assert set(re.findall(r"https?://[\w./-]*", page)) == {"https://github.com/leeoniya/uPlot"}  # in a comment


def test_every_panel_is_drawn_with_what_a_healthy_run_shows(run: Path, tmp_path: Path) -> None:
    panels = lines_of([json.loads(line) for line in (run / "metrics.jsonl").open()])
    assert len(panels) >= 8
    page = page_in_a_browser(write_report(run, tmp_path / "report.html"))
    assert page.count("<canvas") == len(panels)
    assert all(NOTES[title] in page for title in panels)
    assert '<td class="u-value">' in page


def test_a_panel_has_a_row_per_number_and_gaps_where_it_is_missing() -> None:
    rows = [{"kimg": 1.0, "d_loss": 0.5}, {"kimg": 2.0, "g_loss": math.inf}, {"kimg": 3.0, "d_loss": 1 / 3}]
    panel = panel_data("losses", lines_of(rows)["losses"])
    assert panel["names"] == ["d_loss", "g_loss"]
    assert panel["rows"] == [[1.0, 2.0, 3.0], [0.5, None, 0.33333], [None, None, None]]


def test_the_demos_picture_classes_and_largest_evaluation_are_shown(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    Image.new("RGB", (400, 200), "red").save(copy / "demo.png")
    (own,) = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    trial = own | {"num_samples": 2, "fid_efficientnet_lite0": 1.0}  # too good: of two images
    other = own | {"reference_hash": "0" * 16, "fid_efficientnet_lite0": 0.5}  # of other images
    classes = own | {"best_classes_efficientnet_lite0": ["cat 0.1"], "worst_classes_efficientnet_lite0": ["brick 9"]}
    with (copy / "results.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in (trial, other, classes)))
    page = write_report(copy).read_text()
    assert 'width="800" alt="Real and generated images of every class"' in page
    assert "<h3>worst classes</h3><ol><li>brick 9</li></ol>" in page
    best = re.findall(r"lowest FID</th><td>([^<]*) at", page)
    assert best == [f"FID (efficientnet-lite0): {own['fid_efficientnet_lite0']:.5g}"]


def test_an_evaluation_that_was_repeated_stands_there_once(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (row,) = (copy / "results.jsonl").read_text().splitlines()
    (copy / "results.jsonl").write_text(f"{row}\n{row}\n")
    assert write_report(copy).read_text().count('<tr class="of-row') == 1


def test_the_legend_shows_the_last_values_until_somebody_points_at_others(run: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    last = next(row["d_loss"] for row in reversed(rows) if "d_loss" in row)
    page = page_in_a_browser(write_report(run, tmp_path / "report.html"))
    shown = re.findall(r"d_loss</div></th><td class=\"u-value\">([^<]*)<", page)
    assert [float(value) for value in shown] == [float(f"{last:.4g}")]


def test_a_click_enlarges_a_picture_and_the_next_one_does_not(run: Path, tmp_path: Path) -> None:
    report = write_report(run, tmp_path / "report.html")
    click = 'document.querySelectorAll(".picture").forEach(picture => picture.click());'
    assert page_in_a_browser(report, click).count('class="picture sheet large"') == 2
    assert page_in_a_browser(report, click + click).count('class="picture sheet large"') == 0


def test_the_slider_changes_the_sheet(run: Path, tmp_path: Path) -> None:
    report = write_report(run, tmp_path / "report.html")
    assert '<output id="kimg">0.032</output>' in page_in_a_browser(report)
    moved = page_in_a_browser(report, 'when.value = 0; when.dispatchEvent(new Event("input"));')
    assert '<output id="kimg">0.016</output>' in moved


def test_a_run_without_rows_and_one_that_went_back_have_reports(run: Path, tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    bare.mkdir()
    shutil.copy(run / "config.yaml", bare)
    assert "No row has been written yet" in write_report(bare).read_text()
    shutil.copytree(run, other)
    (other / "rollbacks.jsonl").write_text(json.dumps({"from_kimg": 0.02, "to": "x", "reason": "<b>margin</b>"}) + "\n")
    (other / "metrics.jsonl").open("a").write('{"kimg": 0.0')  # a row that is being written
    page = write_report(other).read_text()
    assert "&lt;b&gt;margin&lt;/b&gt;" in page


def test_other_pictures_and_evaluations_beside_those_of_the_run_are_left_out(run: Path, tmp_path: Path) -> None:
    """Draw a grid into the folder of sheets, and measure a folder of pictures into the run's results."""
    mine = shutil.copytree(run, tmp_path / "mine")
    shutil.copy(ROOT / "docs/demo.png", mine / "samples/grid.png")
    with (mine / "results.jsonl").open("a") as file:
        file.write(json.dumps({"kimg": None, "fid": 1.0, "extractor": "inception", "protocol": "10 pictures"}) + "\n")
    page = write_report(mine).read_text()
    assert page.count("data:image/webp;base64,") == 2
    assert "10 pictures" not in page


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run folder: there is no .*config.yaml"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match=r"no configuration file at nothing\.yaml"):
        write_report(run, tmp_path / "report.html", "nothing.yaml")
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "metrics.jsonl").write_text('{"kimg": 1}\n[1]\n{"kimg": 2}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl is damaged"):
        write_report(damaged)
    assert not (damaged / "report.html").exists()


def test_long_lines_are_thinned_to_means() -> None:
    kimg, values = thinned(([float(index) for index in range(10_000)], [1.0, 3.0] * 5_000))
    assert len(kimg) == len(values) == MOST_POINTS
    assert set(values) == {2.0}
    assert kimg[0] == 4.5


@pytest.mark.parametrize(
    ("name", "panel"),
    [
        ("d_loss", "losses"),
        ("fid_efficientnet_lite0", "FID"),
        ("g_gate_64", "gates of the context blocks"),
        ("x", None),
    ],
)
def test_numbers_have_their_panel(name: str, panel: str | None) -> None:
    assert panel_of(name) == panel
