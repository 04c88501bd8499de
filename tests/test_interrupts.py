"""Check that Ctrl-C ends every command within two seconds with one line and exit code 130, without leaving anything."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.paths import ROOT
from support.photo_crops import crop_photographs, save_by_class
from support.small_runs import environment, run_small, write_config

from hamgan.errors import INTERRUPTED, STOPPED

SECONDS = 20.0  # two on a machine with nothing else to do, nine on a busy one
# Where pytest itself runs in the background of a shell, Ctrl-C is ignored, and would be by its children.
HEARS_CTRL_C = ["env", "--default-signal=INT"]
Started = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Start this Python in a process group of its own, as a shell does; whatever is left at the end is killed."""
    started: list[Started] = []

    def call(*arguments: object, **variables: str) -> Started:
        command = [*HEARS_CTRL_C, sys.executable, "-u", *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, env=environment() | variables, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, process_group=0
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


def ctrl_c(process: Started, seconds: float = SECONDS) -> tuple[int, str]:
    """Press Ctrl-C, which reaches the whole process group; return exit code and stderr, which come in time."""
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert time.monotonic() - pressed < seconds, stderr
    return process.returncode, stderr


def leaves_nothing_behind(process: Started) -> bool:
    """Return whether the processes that it started end within seconds as well."""
    for _ in range(100):
        if subprocess.run(["pgrep", "-g", str(process.pid)], stdout=subprocess.DEVNULL).returncode:
            return True
        time.sleep(0.05)
    return False


def wait_for(condition: Callable[[], object], process: Started) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


COMMANDS = [*sorted(path.stem for path in (ROOT / "scripts").glob("*.py")), "hamgan", "benchmarks"]


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_modules_are_imported_is_one_line(start: Callable[..., Started], run: Path, name: str) -> None:
    """Press it at the first import of torch, or of what stands in for it, in each command."""
    module: dict[str, list[object]] = {
        "hamgan": ["-m", "hamgan", "sample"],
        "benchmarks": ["-m", "benchmarks", "block"],
    }
    options: dict[str, list[object]] = {
        "convert": [run / "generator.safetensors", "--output", run / "none.safetensors"],
        "demo_app": ["--checkpoint", run],
        "evaluate": ["--checkpoint", run, "--reference", "photos"],
        "export": ["--checkpoint", run, "--output", run / "none.onnx"],
        "demo": [],
        "train": ["--config", "photos"],
        "prepare_data": ["--source", ROOT / "docs", "--output", run / "none"],
        "report": [run],
        "invert": ["--images", ROOT / "docs" / "demo.png", "--checkpoint", run, "--output", run / "none.png"],
        "segment": ["evaluate", "--checkpoint", run, "--data", "mosaic"],
        "benchmarks": [],
    }
    arguments = options.get(name, ["--checkpoint", run, "--output", run / "none.png"])
    # A hook in the interpreter says when torch is about to be imported, in place of a guess.
    hook = run / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(
        "import sys, time\n"
        "def look(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'torch':\n"
        "        print('importing', flush=True)\n"
        "        time.sleep(0.3)\n"
        "sys.addaudithook(look)\n"
    )
    path = f"{hook}{os.pathsep}{environment()['PYTHONPATH']}"
    process = start(*module.get(name, [f"scripts/{name}.py"]), *arguments, PYTHONPATH=path)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    assert ctrl_c(process) == (INTERRUPTED, "stopped by Ctrl-C\n")


@pytest.mark.slow
def test_ctrl_c_while_sampling_is_one_line(start: Callable[..., Started], run: Path, tmp_path: Path) -> None:
    output = tmp_path / "many"
    process = start("-m", "hamgan", "sample", "--checkpoint", run, "--per-class", "20000", "--output", output)
    wait_for(lambda: list(tmp_path.rglob("*.png")), process)
    assert ctrl_c(process) == (INTERRUPTED, "stopped by Ctrl-C\n")
    assert leaves_nothing_behind(process)


@pytest.mark.slow
def test_ctrl_c_while_evaluating_is_one_line(start: Callable[..., Started], run: Path) -> None:
    measured = ["--features", "efficientnet-lite0", "--reference", "photos", "--num-samples", "50000", "--quiet"]
    process = start("-m", "hamgan", "evaluate", "--checkpoint", run, "--metrics", "fid", *measured)
    time.sleep(12)
    code, stderr = ctrl_c(process)
    assert (code, stderr.splitlines()[-1]) == (INTERRUPTED, "stopped by Ctrl-C")
    assert all(line.startswith("warning") for line in stderr.splitlines()[:-1])


@pytest.mark.slow
def test_ctrl_c_while_preparing_continues_later_and_leaves_no_worker(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    folder = save_by_class(crop_photographs(0, 60), tmp_path / "pictures")
    options = ["--source", folder, "--output", tmp_path / "store", "--resolution", "512", "--workers", "2"]
    process = start("-m", "hamgan", "prepare", *options)
    wait_for(lambda: list((tmp_path / "store/work").glob("train-*.json")), process)  # a first unit of 17 is done
    code, stderr = ctrl_c(process)
    assert code == STOPPED
    assert stderr.splitlines()[-1] == "stopped: run the same command again to continue"
    assert "Traceback" not in stderr
    assert leaves_nothing_behind(process)


@pytest.mark.slow
def test_ctrl_c_while_training_says_so_and_saves(start: Callable[..., Started], tmp_path: Path) -> None:
    options = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run", "--train.total_kimg", "100"]
    process = start("-m", "hamgan", "train", *options)
    wait_for((tmp_path / "run/metrics.jsonl").is_file, process)
    code, stderr = ctrl_c(process, 30)
    assert code == STOPPED
    lines = stderr.splitlines()
    assert "SIGINT: stopping after this step; a second one ends the run at once" in lines
    assert lines[-1].startswith("stopped: checkpoint saved at ")
    assert "Traceback" not in stderr


def test_ctrl_c_does_not_wait_for_a_library(start: Callable[..., Started]) -> None:
    """Press it in C code that hears of no signal, and where somebody swallows KeyboardInterrupt."""
    for work in (
        "import numpy; print(1); numpy.linalg.svd(numpy.random.rand(3000, 3000))",
        "print(1)\n while True:\n  try: time.sleep(60)\n  except BaseException: pass",
    ):
        process = start("-c", f"import time; from hamgan import cli\ndef main():\n {work}\ncli.run(main)")
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(0.2)
        assert ctrl_c(process) == (INTERRUPTED, "stopped by Ctrl-C\n")


def test_a_second_ctrl_c_does_not_wait_for_tidying_up(start: Callable[..., Started]) -> None:
    program = "import time\ndef main():\n try:\n  print(1); time.sleep(60)\n finally: time.sleep(60)\n"
    process = start("-c", f"{program}from hamgan import cli; cli.run(main)")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    assert ctrl_c(process) == (INTERRUPTED, "stopped by Ctrl-C\n")
    assert time.monotonic() - began < 1.0


def test_other_processes_of_a_run_say_nothing(start: Callable[..., Started]) -> None:
    process = start("-c", "import time; from hamgan import cli\ncli.run(lambda: time.sleep(print(1) or 60))", RANK="1")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    assert ctrl_c(process) == (INTERRUPTED, "")


@pytest.mark.parametrize("command", ["train --help", "sample --help", "--help", "train --config photos --print_config"])
def test_output_that_nobody_reads_ends_without_a_word(command: str) -> None:
    for buffering in ("", "-u"):
        line = f"'{sys.executable}' {buffering} -m hamgan {command} | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], env=environment(), cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.strip() in ("0", "141")  # argparse takes no notice of it where it writes at once
        assert done.stderr == ""
