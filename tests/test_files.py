"""Check that files are written whole or not at all, leave nothing behind, and that locks keep other processes out."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from support.small_runs import environment, largest_file

from hamgan.checkpoint.tensors import save_tensors
from hamgan.files import lock, make_once, remove_leftovers, sha256, temporary_name, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from hamgan.files import lock

with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_text_and_bytes_are_written_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "Größe")
    assert path.read_text("utf-8") == "Größe"
    assert sha256(path) == hashlib.sha256("Größe".encode()).hexdigest()
    write_atomically(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_can_be_read_by_those_who_can_read_other_files(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    save_tensors({"x": torch.zeros(1)}, tmp_path / "weights.safetensors", {})
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with largest_file(1000), pytest.raises(OSError, match="too large"):
            write_atomically(path, "new" * 1000)
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = ["a" * 3_000_000, "b" * 3_000_000]
    write_atomically(path, contents[0])
    writing = (
        "import sys; from pathlib import Path; from hamgan.files import write_atomically\n"
        "for letter in 'ba' * 10: write_atomically(Path(sys.argv[1]), letter * 3_000_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", writing, str(path)], env=environment(), cwd=ROOT)
    while process.poll() is None:
        assert path.read_text() in contents
    assert process.returncode == 0


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / "kept.tmp").touch()
    temporary_name(tmp_path / "file").write_text("half")
    folder = temporary_name(tmp_path / "folder")
    folder.mkdir()
    (folder / "tensors").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


def holder(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock, and wait until it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.parametrize("name", ["folder", "file"])
def test_a_lock_keeps_a_second_process_out_until_the_first_is_killed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    process = holder(path)
    try:
        with pytest.raises(BlockingIOError), lock(path, wait=False):
            pass
    finally:
        process.kill()
        process.wait()
    for _ in range(2):
        with lock(path, wait=False):
            pass


def test_a_lock_that_waits_gets_it_when_the_first_process_ends(tmp_path: Path) -> None:
    process = holder(tmp_path / "file")
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 0.5; kill {process.pid}"])
    with lock(tmp_path / "file"):
        assert time.monotonic() - started > 0.4
    process.wait()


MAKE = """
import sys, time
from pathlib import Path
from hamgan.files import make_once

def make(path):
    path.write_text("half")
    time.sleep(0.5)
    path.write_text("whole")
    print("made", flush=True)

make_once(Path(sys.argv[1]), make)
assert Path(sys.argv[1]).read_text() == "whole"
"""


def test_a_file_that_several_processes_want_is_made_by_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(path)], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(printed) == ["", "", "made\n"]


def test_a_file_whose_making_fails_is_made_anew(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("the network is gone")

    path = tmp_path / "file"
    with pytest.raises(OSError, match="network is gone"):
        make_once(path, fail)
    assert [item.name for item in tmp_path.iterdir()] == [".file.lock"]
    make_once(path, lambda partial: partial.write_text("whole"))
    assert path.read_text() == "whole"
