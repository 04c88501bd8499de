"""What breaks around a run: another process of it, its data, its tracker; and signals that come twice."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from faulty_runs import RAISE, SECONDS_TO_NOTICE, Kill, start_life
from photo_crops import crop_photographs, save_by_class, save_store
from PIL import Image
from small_runs import forget_accelerator, small_config

from hamgan.checkpoint import list_checkpoints
from hamgan.command_line import BAD_USAGE, FAILURE, STOPPED
from hamgan.setting_up import make_accelerator
from hamgan.tracker import QUEUE_LENGTH, Tracker

SHORT = ["train.total_kimg=0.08", "checkpoint.every_kimg=0.016", "log.every_kimg=0.04", "data.prefetch=1"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return save_store(crop_photographs(0, 10), tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_by_class(crop_photographs(0, 4), tmp_path / "pictures")


def log(run: Path, rank: int = 0) -> str:
    return (run / f"log{rank}.txt").read_text()


@pytest.mark.slow
def test_when_one_process_fails_the_other_ends_with_its_message(store: Path, tmp_path: Path) -> None:
    kill = Kill("between", 2, rank=1, number=RAISE)
    life = start_life(tmp_path / "run", [*SHORT, f"data.source={store}"], 2, kill)
    assert life.codes == [FAILURE, FAILURE]
    assert life.seconds_to_end < SECONDS_TO_NOTICE
    assert "process 1: RuntimeError: process 1 was made to fail" in log(tmp_path / "run")


@pytest.mark.slow
def test_a_second_signal_ends_a_run_at_once(store: Path, tmp_path: Path) -> None:
    """The first one waits for the step, here for an evaluation of thousands of images."""
    evaluates = ["eval.every_kimg=0.008", "eval.features=efficientnet-lite0", "eval.num_samples=5000"]
    sent: list[float] = []

    def twice(process: object) -> None:
        def send() -> None:
            sent.append(time.monotonic())
            os.kill(process.pid, signal.SIGTERM)  # type: ignore[attr-defined]

        send()
        threading.Timer(3.0, send).start()

    life = start_life(tmp_path / "run", [*SHORT, *evaluates, f"data.source={store}"], 1, Kill("evaluation"), twice)
    assert life.codes == [-signal.SIGTERM]
    assert len(sent) == 2
    assert time.monotonic() - sent[1] < 5


@pytest.mark.slow
def test_pictures_that_go_stop_the_run_with_a_sentence_and_it_resumes_when_they_are_back(
    folder: Path, tmp_path: Path
) -> None:
    options = [*SHORT, "train.total_kimg=0.12", f"data.source={folder}"]
    run, away = tmp_path / "run", folder.with_name("away")
    life = start_life(run, options, 1, Kill("images", 4), lambda process: folder.rename(away) and None)
    assert life.codes == [BAD_USAGE]
    assert "Traceback" not in log(run)
    assert "failed, next attempt in 1 s: no picture of class" in log(run)
    assert "error: reading training images at position" in log(run)
    assert list_checkpoints(run / "run/checkpoints") != []
    away.rename(folder)
    assert start_life(run, options, 1, Kill("never")).codes == [0]


@pytest.mark.slow
def test_a_picture_that_turns_unreadable_is_named_and_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    broken = folder / "coffee/001.png"
    life = start_life(
        tmp_path / "run",
        [*SHORT, f"data.source={folder}"],
        1,
        Kill("images", 1),
        lambda process: broken.write_bytes(b"not a picture") and None,
    )
    assert life.codes == [0]
    assert "coffee/001.png is not a picture in a known format; the next picture of its class stands in" in log(
        tmp_path / "run"
    )


@pytest.mark.slow
def test_a_store_that_is_cut_short_under_a_run_says_where_it_died(store: Path, tmp_path: Path) -> None:
    """A file that is mapped into memory cannot raise; resuming names the file."""
    file, run = store / "train/images.npy", tmp_path / "run"
    options = [*SHORT, f"data.source={store}"]
    life = start_life(run, options, 1, Kill("images", 2), lambda process: os.truncate(file, 128))
    assert life.codes[0] in (-signal.SIGBUS, -signal.SIGSEGV)  # the second where the system is emulated
    assert re.search("Fatal Python error: (Bus error|Segmentation fault)", log(run))
    assert "hamgan/data/store.py" in log(run)
    assert start_life(run, options, 1, Kill("never")).codes == [BAD_USAGE]
    assert f"{file} is missing or damaged" in log(run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_one_signal_to_two_processes_saves_and_resumes(store: Path, tmp_path: Path, number: signal.Signals) -> None:
    options = [*SHORT, f"data.source={store}"]
    life = start_life(tmp_path / "run", options, 2, Kill("images", 3, rank=-1, number=number))
    assert life.codes == [STOPPED, STOPPED]
    assert "stopped: checkpoint saved at" in log(tmp_path / "run")
    assert start_life(tmp_path / "run", options, 2, Kill("never")).codes == [0, 0]


def test_a_slow_tracker_holds_nothing_up(tmp_path: Path) -> None:
    """It takes one row and then no more: the run writes on, is warned once, and leaves it behind."""
    config = small_config(tmp_path, "log.tracker=tensorboard")
    config.folder.mkdir()
    forget_accelerator()
    accelerator, warnings, hang = make_accelerator(config), list[str](), threading.Event()
    accelerator.log = lambda *values, **options: hang.wait()
    tracker = Tracker(accelerator, config, config.folder, warnings.append)
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
