"""Test faults around a run: failing processes, damaged data, a full disk, trackers, and signals that come twice."""

import os
import re
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.fault_tally import BOTH, ONE_OF_TWO, Tally
from support.faulty_runs import RAISE, SECONDS_TO_NOTICE, Kill, Life, start_life
from support.photo_crops import crop_photographs, save_by_class, save_store
from support.small_runs import assert_same_state, last_state, rows

from hamgan.checkpoint import list_checkpoints
from hamgan.errors import BAD_USAGE, FAILURE, STOPPED

SHORT = ["train.total_kimg=0.08", "checkpoint.every_kimg=0.016", "log.every_kimg=0.04", "data.prefetch=1"]


VANISHED, CUT_SHORT = "pictures that vanish", "a store that is cut short"
FULL, DAMAGED = "a full disk", "a damaged newest checkpoint"
SIGNALS = "SIGTERM, SIGINT or SIGUSR1"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return save_store(crop_photographs(0, 10), tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_by_class(crop_photographs(0, 4), tmp_path / "pictures")


def finish(run: Path, options: list[str], interrupted: Life, processes: int = 1) -> int:
    """Resume the run to its end, and return how many images it has made again."""
    life = start_life(run, options, processes, Kill("never"))
    assert life.codes == [0] * processes, log(run)[-3000:]
    assert life.began is not None
    return interrupted.reached - life.began


def log(run: Path, rank: int = 0) -> str:
    return (run / f"log{rank}.txt").read_text()


@pytest.mark.slow
@pytest.mark.fault("an exception", ONE_OF_TWO)
@pytest.mark.parametrize("moment", ["data", "between"])
def test_when_one_process_fails_the_other_ends_with_its_message(store: Path, tmp_path: Path, moment: str) -> None:
    """Fail in the set-up, where the other process is ahead and waits, or in training."""
    kill = Kill(moment, 1, rank=1, number=RAISE)
    life = start_life(tmp_path / "run", [*SHORT, f"data.source={store}"], 2, kill)
    assert life.codes == [FAILURE, FAILURE]
    assert life.seconds_to_end < SECONDS_TO_NOTICE
    assert "process 1: RuntimeError: process 1 was made to fail" in log(tmp_path / "run")


@pytest.mark.long
@pytest.mark.fault("a process that hangs", ONE_OF_TWO)
def test_when_one_process_hangs_the_other_says_so_and_ends(store: Path, tmp_path: Path) -> None:
    """Stop a process by signal, as endless swapping would; its connections stay open, as NCCL's seem to."""
    kill = Kill("between", 2, rank=1, number=signal.SIGSTOP)
    options = [*SHORT, f"data.source={store}"]
    life = start_life(tmp_path / "run", options, 2, kill)
    assert life.codes[0] == FAILURE
    assert life.seconds_from_strike < SECONDS_TO_NOTICE
    assert "process 1 has shown no sign of life for 40 s: it was killed or hangs" in log(tmp_path / "run")
    finish(tmp_path / "run", options, life, 2)


@pytest.mark.slow
@pytest.mark.fault("a second SIGTERM")
def test_a_second_signal_ends_a_run_at_once(store: Path, tmp_path: Path) -> None:
    """Send a second signal while the first one waits for the step, here for an evaluation of thousands of images."""
    evaluates = ["eval.every_kimg=0.008", "eval.features=efficientnet-lite0", "eval.num_samples=5000"]
    sent: list[float] = []

    def twice(process: object) -> None:
        def send() -> None:
            sent.append(time.monotonic())
            os.kill(process.pid, signal.SIGTERM)  # type: ignore[attr-defined]

        send()
        threading.Timer(3.0, send).start()

    life = start_life(tmp_path / "run", [*SHORT, *evaluates, f"data.source={store}"], 1, Kill("evaluation"), twice)
    assert life.codes == [128 + signal.SIGTERM]
    assert len(sent) == 2
    assert "SIGTERM: stopping after this step; a second one ends the run at once\n" in log(tmp_path / "run")
    assert time.monotonic() - sent[1] < 5


@pytest.mark.slow
@pytest.mark.fault(VANISHED)
def test_pictures_that_go_stop_the_run_with_a_sentence_and_it_resumes_when_they_are_back(
    folder: Path, tmp_path: Path, tally: Tally
) -> None:
    options = [*SHORT, "train.total_kimg=0.12", f"data.source={folder}"]
    run, away = tmp_path / "run", folder.with_name("away")
    life = start_life(run, options, 1, Kill("images", 4), lambda process: folder.rename(away))
    assert life.codes == [BAD_USAGE]
    assert "Traceback" not in log(run)
    assert "failed, next attempt in 1 s: no picture of class" in log(run)
    assert "error: reading training images at position" in log(run)
    assert list_checkpoints(run / "run/checkpoints") != []
    away.rename(folder)
    tally.made_again(VANISHED, finish(run, options, life))


@pytest.mark.slow
@pytest.mark.fault("a picture that turns unreadable")
def test_a_picture_that_turns_unreadable_is_named_and_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    broken = folder / "coffee/001.png"
    life = start_life(
        tmp_path / "run",
        [*SHORT, f"data.source={folder}"],
        1,
        Kill("images", 1),
        lambda process: broken.write_bytes(b"not a picture"),
    )
    assert life.codes == [0]
    assert "coffee/001.png is not a picture in a known format; the next picture of its class replaces it" in log(
        tmp_path / "run"
    )


@pytest.mark.slow
@pytest.mark.fault(CUT_SHORT)
def test_a_store_that_is_cut_short_under_a_run_says_where_it_died(store: Path, tmp_path: Path, tally: Tally) -> None:
    """Check the log of the crash, as a file mapped into memory cannot raise; resuming names the file."""
    file, run = store / "train/images.npy", tmp_path / "run"
    whole = file.read_bytes()
    # Longer than the others: the file is cut by another process, which may be late.
    options = [*SHORT, f"data.source={store}", "train.total_kimg=0.4"]
    life = start_life(run, options, 1, Kill("images", 2), lambda process: os.truncate(file, 128))
    assert life.codes[0] in (-signal.SIGBUS, -signal.SIGSEGV)  # the second where the system is emulated
    assert re.search("Fatal Python error: (Bus error|Segmentation fault)", log(run))
    assert "hamgan/data/store.py" in log(run)
    assert start_life(run, options, 1, Kill("never")).codes == [BAD_USAGE]
    assert f"{file} is missing or damaged" in log(run)
    file.write_bytes(whole)
    tally.made_again(CUT_SHORT, finish(run, options, life))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Train a run without faults, and return its folder and options."""
    folder = tmp_path_factory.mktemp("untouched")
    options = [*SHORT, f"data.source={save_store(crop_photographs(0, 10), folder / 'store')}"]
    assert start_life(folder, options, 1, Kill("never")).codes == [0]
    return folder / "run", options


def fill_disk(process: Any, limit: int = 20_000) -> None:
    """Limit the file size of the process from now on: writing fails in the middle, as on a full disk."""
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))


@pytest.mark.slow
@pytest.mark.fault(FULL)
def test_a_full_disk_stops_a_run_with_a_sentence_and_it_resumes(
    untouched: tuple[Path, list[str]], tmp_path: Path, tally: Tally
) -> None:
    expected, options = untouched
    life = start_life(tmp_path, options, 1, Kill("images", 3), fill_disk)
    assert life.codes == [FAILURE]
    assert "Traceback" not in log(tmp_path)
    assert re.search("error: could not write .*/checkpoints/.*; older checkpoints are untouched", log(tmp_path))
    tally.made_again(FULL, finish(tmp_path, options, life))
    assert_same_state(last_state(expected), last_state(tmp_path / "run"))
    assert rows(expected) == rows(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.fault(f"{FULL}, checkpoint.on_full_disk=continue")
def test_a_disk_that_is_full_for_a_while_stops_no_run_that_is_to_go_on(
    untouched: tuple[Path, list[str]], tmp_path: Path
) -> None:
    expected, options = untouched

    def empty_when_warned(process: Any) -> None:
        while "tries again" not in log(tmp_path) and process.is_alive():
            time.sleep(0.01)
        fill_disk(process, resource.RLIM_INFINITY)

    def fill_and_empty(process: Any) -> None:
        fill_disk(process)
        threading.Thread(target=empty_when_warned, args=(process,)).start()

    longer = [*options, "checkpoint.on_full_disk=continue"]
    life = start_life(tmp_path, longer, 1, Kill("images", 3), fill_and_empty)
    assert life.codes == [0], log(tmp_path)[-3000:]
    assert "; the run goes on and tries again at the next checkpoint" in log(tmp_path)
    assert_same_state(last_state(expected), last_state(tmp_path / "run"))
    assert rows(expected) == rows(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.fault(DAMAGED)
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(
    untouched: tuple[Path, list[str]], tmp_path: Path, tally: Tally
) -> None:
    expected, options = untouched
    shutil.copytree(expected, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run/checkpoints")[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100] + bytes(100))
    tally.made_again(DAMAGED, finish(tmp_path, options, Life(reached=80)))
    assert f"skipping a checkpoint: {newest} is damaged" in log(tmp_path)
    assert_same_state(last_state(expected), last_state(tmp_path / "run"))
    assert rows(expected) == rows(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.fault(SIGNALS, BOTH)
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.long) for each in (signal.SIGTERM, signal.SIGUSR1))],
)
def test_one_signal_to_two_processes_saves_and_resumes(
    store: Path, tmp_path: Path, tally: Tally, number: signal.Signals
) -> None:
    # Longer than the others: the signal comes from another process, which may be late.
    options = [*SHORT, f"data.source={store}", "train.total_kimg=0.4"]
    life = start_life(tmp_path / "run", options, 2, Kill("images", 3, rank=-1, number=number))
    assert life.codes == [STOPPED, STOPPED]
    assert "stopped: checkpoint saved at" in log(tmp_path / "run")
    tally.made_again(SIGNALS, finish(tmp_path / "run", options, life, 2))


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(untouched: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Begin a run with two processes and end it with one; images and noise are those of one process from the start."""
    expected, options = untouched
    life = start_life(tmp_path, options, 2, Kill("images", 4, number=signal.SIGTERM))
    assert life.codes == [STOPPED, STOPPED]
    finish(tmp_path, options, life)
    for ours, theirs in zip(rows(expected), rows(tmp_path / "run"), strict=True):
        for name in ("d_loss", "g_loss", "logits_real", "logits_fake"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), (ours["kimg"], name)
