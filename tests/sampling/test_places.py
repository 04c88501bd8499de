"""Check that a slip in the path of a run is answered at once, with the run that was meant, and no hub is asked."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.small_runs import environment

from hamgan.errors import CheckpointError
from hamgan.sampling.places import check_place


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "cifar-long"):
        (tmp_path / "runs" / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("run/photos", "runs/photos"),
        ("runs/photo", "runs/photos"),
        ("rnus/cifar_long", "runs/cifar-long"),
        ("photos", "runs/photos"),
        ("./run/photos", "runs/photos"),
    ],
)
def test_a_slip_names_the_run_that_was_meant(given: str, meant: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_place(given)
    assert str(caught.value) == f"there is no checkpoint at {given}; did you mean `{meant}`?"


@pytest.mark.parametrize("given", ["runs/photos", "owner/photos", "owner/name", "google/biggan"])
def test_runs_and_names_on_a_hub_pass(given: str) -> None:
    check_place(given)


@pytest.mark.parametrize("given", ["zzz", "runs/zzz", "a/b/c", "/zzz/photos"])
def test_what_is_like_nothing_is_said_not_to_be_there(given: str) -> None:
    with pytest.raises(CheckpointError, match=f"^there is no checkpoint at {given}$"):
        check_place(given)


def test_every_command_answers_before_torch(tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    commands = ["sample --output a.png", "export --output a.onnx", "app", "evaluate", "evaluate sweep --output a.png"]
    commands += ["invert --images cat.png --output a.png", "segment evaluate", "segment predict cat.png --output x"]
    commands.append("segment export --output a.onnx")
    code = """
import sys
from hamgan import cli
from hamgan.errors import CheckpointError, ConfigError
for line in sys.argv[1:]:
    try:
        cli._dispatch(line.split())
        print("nothing said", line)
    except (CheckpointError, ConfigError) as error:
        assert "did you mean `runs/photos`?" in str(error), error
    assert "torch" not in sys.modules, line
"""
    lines = [f"{command} --checkpoint run/photos" for command in commands]
    lines += ["report run/photos", "segment report run/photos"]
    lines += ["convert run/photos --output x", "segment convert run/photos --output x"]
    done = subprocess.run([sys.executable, "-c", code, *lines], env=environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
