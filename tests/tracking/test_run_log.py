"""Test the log of a run: rows that survive restarts, sheets, lines."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from support.run_logs import log_row, log_sheet, open_log

from hamgan.tracking.run_log import keep_rows_until

pytestmark = pytest.mark.usefixtures("new_accelerator")


def test_rows_beyond_a_checkpoint_and_a_cut_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"kimg": images / 1000, "d_loss": 1.0}) for images in (8, 16, 24, 32)]
    path.write_text("\n".join([*lines, '{"kimg": 0.0']))
    keep_rows_until(path, 24)
    assert path.read_text().splitlines() == lines[:3]
    keep_rows_until(tmp_path / "missing.jsonl", 24)
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_rows_and_sheets_lie_in_the_run_folder(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log_row(log, 1500, d_loss=0.5)
    log_sheet(log, 1500)
    log.close()
    assert json.loads((log.folder / "metrics.jsonl").read_text()) == {"kimg": 1.5, "d_loss": 0.5}
    assert (log.folder / "samples/00000001.500.png").is_file()


@pytest.mark.parametrize(
    ("total", "images", "shown"), [(0.16, 160, "0.16/0.16"), (48, 1540, "1.5/48"), (0.5, 500, "0.5/0.5")]
)
def test_a_line_on_the_screen_never_stands_beyond_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], total: float, images: int, shown: str
) -> None:
    log = open_log(tmp_path, f"train.total_kimg={total}")
    log_row(log, images, d_loss=0.5)
    log.close()
    assert f"{shown} kimg  d_loss 0.500" in capsys.readouterr().err


def test_a_line_that_no_disk_takes_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        log = open_log(tmp_path)
        log_row(log, 1000, d_loss=0.5)
        monkeypatch.undo()
        with contextlib.suppress(OSError):  # what is left in its buffer
            full.close()
    log.close()
    assert len((log.folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_speed_is_that_since_the_previous_row_without_compilation_and_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    log = open_log(tmp_path, "train.total_kimg=1.0")

    def make_steps(count: int, seconds: float) -> dict[str, float]:
        for _ in range(count):
            now[0] += seconds
            log.progress.images += 10
            log.count_step(10)
        return log.speed()

    first = make_steps(1, 100.0)  # compiles
    assert (first["images_per_second"], first["seconds_left"]) == (0.1, 9900.0)
    assert make_steps(5, 1.0)["images_per_second"] == 10.0
    with log.outside_training():
        now[0] += 15.0
    row = make_steps(5, 2.0)
    assert row["images_per_second"] == 5.0
    assert row["seconds_left"] == pytest.approx(890 * 30 / 100)  # 15 s of steps, 15 of evaluation
    log.close()
