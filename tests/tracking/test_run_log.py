"""What a run writes: rows that survive restarts, TensorBoard, wandb offline, and trackers that break."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.small_runs import forget_accelerator, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hamgan.tracking.run_log import RunLog, duration, keep_rows_until
from hamgan.training.setup import make_accelerator


@pytest.fixture(autouse=True)
def _new_accelerator() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


def open_log(folder: Path, *overrides: str, images: int = 0) -> RunLog:
    config = small_config(folder, *overrides)
    config.folder.mkdir(exist_ok=True)
    return RunLog(config.folder, config, make_accelerator(config), images)


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
    log.row(1500, {"d_loss": 0.5})
    log.sheet("00000001", Image.new("RGB", (4, 4)), 1500)
    log.close()
    assert json.loads((log.folder / "metrics.jsonl").read_text()) == {"kimg": 1.5, "d_loss": 0.5}
    assert (log.folder / "samples/00000001.png").is_file()


def test_tensorboard_receives_rows_and_sheets(tmp_path: Path) -> None:
    log = open_log(tmp_path, "log.tracker=tensorboard", "log.project=board")
    for images in (1000, 2000):
        log.row(images, {"d_loss": images / 1000, "note": "text is left out"})
    log.sheet("00000002", Image.new("RGB", (4, 4), "red"), 2000)
    log.close()
    events = EventAccumulator(str(log.folder / "board"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("losses/d_loss")] == [(1000, 1.0), (2000, 2.0)]
    assert events.Tags()["images"] != []


def test_wandb_writes_offline_where_nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = open_log(tmp_path, "log.tracker=wandb")
    log.row(1000, {"d_loss": 0.5})
    log.sheet("00000001", Image.new("RGB", (4, 4)), 1000)
    log.close()
    assert not log._tracker.failed  # type: ignore[union-attr]
    assert list((log.folder / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_line_that_no_disk_takes_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        log = open_log(tmp_path)
        log.row(1000, {"d_loss": 0.5})
        monkeypatch.undo()
        with contextlib.suppress(OSError):  # what is left in its buffer
            full.close()
    log.close()
    assert len((log.folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_broken_tracker_is_warned_about_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard's folder is a file: what it says is shown once, and the rows are where they always are."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/board").touch()
    log = open_log(tmp_path, "log.tracker=tensorboard", "log.project=board")
    for images in (1000, 2000, 3000):
        log.row(images, {"d_loss": 0.5})
    log.close()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "warning: tensorboard failed and is left alone from here: [Errno 17] File exists" in warnings[0]
    assert len((log.folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    log = open_log(tmp_path, "log.tracker=tensorboard")
    log.row(1000, {"d_loss": 0.5})
    log.close()
    assert "warning: tensorboard failed and is left alone from here: " in capsys.readouterr().err


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0, 59.9, 3725, 360_000)] == ["0:00:00", "0:00:59", "1:02:05", "100:00:00"]
    assert duration(float("inf")) == "?"
