"""Check that trackers get rows and sheets, and that broken, hanging or missing ones cause a warning only."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.run_logs import log_row, log_sheet, open_log
from support.small_runs import forget_accelerator, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from hamgan.tracking.trackers import QUEUE_LENGTH, Tracker
from hamgan.training.setup import make_accelerator


@pytest.fixture(autouse=True)
def _new_accelerator() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


def test_tensorboard_receives_rows_and_sheets(tmp_path: Path) -> None:
    log = open_log(tmp_path, "log.tracker=tensorboard", "log.project=board")
    for images in (1000, 2000):
        log_row(log, images, d_loss=images / 1000, note="text is left out")
    log_sheet(log, 2000)
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
    log_row(log, 1000, d_loss=0.5)
    log_sheet(log, 1000)
    log.close()
    assert not log._tracker.failed  # type: ignore[union-attr]
    assert list((log.folder / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_broken_tracker_is_warned_about_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Put a file in the place of TensorBoard's folder: its error is shown once, and the rows are still written."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/board").touch()
    log = open_log(tmp_path, "log.tracker=tensorboard", "log.project=board")
    for images in (1000, 2000, 3000):
        log_row(log, images, d_loss=0.5)
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
    log_row(log, 1000, d_loss=0.5)
    log.close()
    assert "warning: tensorboard failed and is left alone from here: " in capsys.readouterr().err


@pytest.mark.fault("a tracker that hangs")
def test_a_slow_tracker_holds_nothing_up(tmp_path: Path) -> None:
    """Check that a tracker that hangs after one row is warned about once and left behind while the run writes on."""
    config = small_config(tmp_path, "log.tracker=tensorboard")
    config.folder.mkdir()
    forget_accelerator()
    accelerator, warnings, hang = make_accelerator(config), list[str](), threading.Event()
    accelerator.log = lambda *values, **options: hang.wait()
    tracker = Tracker(accelerator, config, warnings.append)
    started = time.monotonic()
    for images in range(QUEUE_LENGTH + 50):
        tracker.row({"d_loss": 0.5}, images)
    tracker.sheet(Image.new("RGB", (4, 4)), 1)
    assert time.monotonic() - started < 5
    tracker.close(seconds=0.2)
    hang.set()
    forget_accelerator()
    assert len(warnings) == 2
    assert "tensorboard is too slow; rows it has no room for are in metrics.jsonl only" in warnings[0]
    assert "tensorboard did not finish within 0.2 s and is left behind" in warnings[1]
