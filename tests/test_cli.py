"""Test the command `hamgan` and the parts that its scripts share: dispatch, help, exit codes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from support.small_runs import environment
from test_docs import SUBCOMMANDS

from hamgan import cli
from hamgan.cli import COMMANDS
from hamgan.config.reading import GAN
from hamgan.errors import BAD_USAGE, DONE, FAILURE, STOPPED, CheckpointError, ConfigError, Stopped, refuse_renamed
from hamgan.segmentation.config import SEGMENTATION

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def hamgan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `hamgan` with arguments in this process; return its exit code and what it printed."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["hamgan", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return call


def test_every_command_is_listed_and_has_help(hamgan: Command) -> None:
    code, text = hamgan()
    assert code == DONE
    for name in COMMANDS:
        assert f"  {name} " in text
        code, own = hamgan(name, "--help")
        assert code == DONE
        assert f"usage: hamgan {name} " in own


@pytest.mark.parametrize("command", ["train --config photos", "segment train --config land", "segment demo"])
def test_a_printed_configuration_is_one_to_train_by(hamgan: Command, tmp_path: Path, command: str) -> None:
    code, text = hamgan(*command.split(), "--name", "mine", "--print_config")
    assert code == DONE
    (file := tmp_path / "mine.yaml").write_text(text)
    reader = SEGMENTATION if command.startswith("segment") else GAN
    preset = "land" if command.startswith("segment") else "photos"
    assert reader.load(file) == reader.load(preset, ["name=mine"])


def test_the_help_of_the_segmenters_demo_has_the_values_that_it_trains_with(hamgan: Command) -> None:
    code, text = hamgan("segment", "demo", "--help")
    assert code == DONE
    train = SEGMENTATION.load("land").train
    for key in ("total_kimg", "lr"):
        (shown,) = re.findall(rf"--train\.{key} .*?\(default: (.*?)\)", " ".join(text.split()))
        assert float(shown) == getattr(train, key)


HELP = """
import contextlib, io, sys
from hamgan import cli
for arguments in ([*words, "--help"] for words in {words}):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli._dispatch(arguments)
    assert "usage: hamgan" in printed.getvalue(), arguments
    slow = {{"torch", "numpy", "PIL", "torchvision", "scipy", "accelerate"}} & set(sys.modules)
    assert not slow, f"{{arguments}} imports {{slow}}"
"""


def test_no_help_waits_for_torch() -> None:
    """Check it by the modules that are loaded, which a slow machine does not change."""
    subcommands = [(name, sub) for name, found in SUBCOMMANDS.items() for sub in found]
    code = HELP.format(words=[(), *((name,) for name in COMMANDS), *subcommands])
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SLIPS = """
import sys
from hamgan import cli
from hamgan.errors import ConfigError
for words, meant in {slips}:
    try:
        cli._dispatch(words.split())
    except ConfigError as error:
        assert f"did you mean `{{meant}}`?" in str(error), error
        assert "torch" not in sys.modules, words
    else:
        raise AssertionError(words)
"""


def test_a_slip_in_the_name_of_data_is_answered_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "land").mkdir(parents=True)
    slips = [
        ("train --config photos --data.source phtos", "photos"),
        ("train --config photos --data.source date/mine --dry-run", "data/mine"),
        ("train --config photos --eval.every_kimg 1 --eval.reference data/mime", "data/mine"),
        ("segment train --config land --data.source lnd", "land"),
        ("segment inspect --data.source data/min", "data/mine"),
        ("evaluate --checkpoint data/mine --reference fashon", "fashion"),
        ("evaluate reference --data data/mnie --output x.safetensors", "data/mine"),
        ("prepare --source data/min --output x", "data/mine"),
        ("prepare --source cifr10 --output x", "cifar10"),
        ("prepare --source data/mine --val-source data/mien --output x", "data/mine"),
        ("prepare select data/mime", "data/mine"),
        ("segment evaluate --checkpoint runs/land --data lad", "land"),
        ("segment predict --checkpoint runs/land --output x data/mime", "data/mine"),
    ]
    command = [sys.executable, "-c", SLIPS.format(slips=slips)]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_that_wait_sleep_unless_the_user_wants_otherwise() -> None:
    code = "import os, sys; from hamgan.cli import run\n"
    code += "run(lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules))"
    variables = {name: value for name, value in environment().items() if name != "OMP_WAIT_POLICY"}
    for own, expected in (({}, "passive False\n"), ({"OMP_WAIT_POLICY": "active"}, "active False\n")):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=variables | own, capture_output=True, text=True, check=True)
        assert done.stdout == expected


def test_a_process_of_several_ends_before_threads_of_libraries_can_abort_it() -> None:
    code = "import atexit; from hamgan.cli import run\natexit.register(print, 'torn down'); run(lambda: print('done'))"
    for processes, expected in (("2", "done\n"), ("1", "done\ntorn down\n")):
        own = environment() | {"WORLD_SIZE": processes}
        done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
        assert done.stdout == expected


def test_an_unknown_command_names_the_nearest(hamgan: Command) -> None:
    code, text = hamgan("trian", "--config", "photos")
    assert code == BAD_USAGE
    assert text == (
        "error: unknown command `trian`; there are train, sample, average, evaluate, prepare, prepare select, export, "
        "convert, invert, report, segment, app, doctor; did you mean `train`?\n"
    )


def test_the_version_is_told(hamgan: Command) -> None:
    code, text = hamgan("--version")
    assert (code, text.split()[0]) == (DONE, "hamgan")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hamgan", "report", "--help"],
        env=environment(),
        cwd=ROOT.parent,  # not in the checkout
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: hamgan report" in done.stdout


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_hold_no_logic(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 20


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ConfigError("no such key"), BAD_USAGE, "error: no such key"),
        (CheckpointError("damaged"), FAILURE, "error: damaged"),
        (OSError("no space"), FAILURE, "error: no space"),
        (Stopped("saved"), STOPPED, "stopped: saved"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            FAILURE,
            "error: CUDA out of memory. Tried to allocate 2.00 GiB; use a larger --train.accumulation in training, "
            "a smaller --batch-size elsewhere",
        ),
    ],
)
def test_a_users_mistake_is_a_sentence_and_an_exit_code(
    error: Exception, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(fail)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{sentence}\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: print(1 / 0))


def test_an_option_of_an_earlier_version_says_what_it_is_called_now() -> None:
    refuse_renamed(["--output", "x"], {"--out": "--output"})
    for given in (["--out", "x"], ["--out=x"]):
        with pytest.raises(ConfigError, match=r"^--out is called --output now$"):
            refuse_renamed(given, {"--out": "--output"})
