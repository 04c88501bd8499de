"""Check that trackers get rows and sheets, and that broken, hanging or missing ones cause a warning only."""

import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from support.run_logs import log_row, log_sheet, open_log
from support.small_runs import small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]

from hamgan.checkpoint import Progress
from hamgan.tracking.trackers import QUEUE_LENGTH, Tracker

pytestmark = pytest.mark.usefixtures("new_accelerator")


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


def test_tensorboard_shows_no_step_twice_after_a_kill_and_a_rollback(tmp_path: Path) -> None:
    """Stop at 3,000 images without an end, go on from 2,000, then go back to 1,000: each step counts once."""
    log = open_log(tmp_path, "log.tracker=tensorboard")
    for images in (1000, 2000, 3000):
        log_row(log, images, d_loss=images / 1000, seconds=images)
    log.close()
    again = open_log(tmp_path, "log.tracker=tensorboard", images=2000)
    for images in (3000, 4000):
        log_row(again, images, d_loss=10.0)
    again.progress.images = 1000
    again.drop_later_rows()
    log_row(again, 2000, d_loss=20.0)
    again.close()
    events = EventAccumulator(str(log.folder / "hamgan"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("losses/d_loss")] == [(1000, 1.0), (2000, 20.0)]


def test_tensorboard_gets_the_configuration_as_hyper_parameters(tmp_path: Path) -> None:
    log = open_log(tmp_path, "log.tracker=tensorboard")
    log.close()
    events = EventAccumulator(str(log.folder / "hamgan"))
    events.Reload()
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(data).session_start_info.hparams
    assert values["train.generator_lr"].number_value == 1e-4
    assert values["generator.context_resolutions"].string_value == "[16]"


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
    assert "warning: tensorboard failed and is not used any more: [Errno 17] File exists" in warnings[0]
    assert len((log.folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = open_log(tmp_path, "log.tracker=tensorboard")
    log_row(log, 1000, d_loss=0.5)
    log.close()
    assert "warning: tensorboard failed and is not used any more: " in capsys.readouterr().err


@pytest.mark.fault("a tracker that hangs")
def test_a_slow_tracker_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a tracker that hangs after one row is warned about once and left behind while the run writes on."""
    config = small_config(tmp_path, "log.tracker=tensorboard")
    config.folder.mkdir()
    warnings, hang = list[str](), threading.Event()
    tracker = Tracker(config, Progress(), warnings.append)
    monkeypatch.setattr(tracker.writer, "row", lambda *values: hang.wait())
    started = time.monotonic()
    for images in range(QUEUE_LENGTH + 50):
        tracker.row({"d_loss": 0.5}, images)
    tracker.sheet(Image.new("RGB", (4, 4)), 1)
    assert time.monotonic() - started < 5
    tracker.close(seconds=0.2)
    hang.set()
    assert len(warnings) == 2
    assert "tensorboard is too slow; some rows are in metrics.jsonl only" in warnings[0]
    assert "tensorboard did not finish within 0.2 s and is abandoned" in warnings[1]
