"""Check the Dockerfile without Docker: what it copies exists and is sent, its shell parses, its filters find torch."""

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
COMMANDS = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()


def arguments_of(instruction: str) -> list[str]:
    """Return what follows an instruction such as COPY, for each time that it is given."""
    return [line.partition(" ")[2] for line in COMMANDS if line.startswith(f"{instruction} ")]


def is_sent(path: str) -> bool:
    """Return whether .dockerignore lets a path through; the last line that matches decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#") and fnmatch.fnmatch(path.split("/")[-1 if "**" in line else 0], pattern):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_there_and_sent() -> None:
    sources = [path for line in arguments_of("COPY") for path in line.split()[:-1]]
    assert {"hamgan", "configs", "pyproject.toml", "requirements.txt"} <= set(sources)
    for path in sources:
        assert (ROOT / path).exists(), path
        assert is_sent(path), path
    assert not is_sent("runs")
    assert not is_sent(".git")
    assert not is_sent("hamgan/__pycache__")


def test_everything_that_the_package_is_built_from_is_copied() -> None:
    sources = {path for line in arguments_of("COPY") for path in line.split()[:-1]}
    named = set(re.findall(r'(?:file = \[|readme = )"([\w.-]+)"', (ROOT / "pyproject.toml").read_text()))
    assert {"README.md", "requirements.txt", "requirements-dev.txt"} < named
    assert named <= sources


def test_whoever_runs_it_may_write_into_the_home_folder() -> None:
    (home,) = re.findall(r"^ENV HOME=(\S+)", TEXT, re.MULTILINE)
    (made,) = [line for line in arguments_of("RUN") if "useradd" in line]
    assert re.search(rf"chmod 1777 .*{home}(\s|$)", made)


@pytest.mark.parametrize(("torch", "code"), [("cpu", 0), ("cuda", 0), ("rocm", 1)])
def test_the_shell_of_the_installation_does_what_the_arguments_say(tmp_path: Path, torch: str, code: int) -> None:
    (script,) = [line for line in arguments_of("RUN") if "$TORCH" in line]
    (tmp_path / "pip").write_text('#!/bin/sh\necho pip "$@"\nfor last; do :; done; cat "$last" >> installed\n')
    (tmp_path / "pip").chmod(0o755)
    for name in ("requirements.txt", "requirements-sharing.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH": torch, "EXTRAS": "none"}
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr == "TORCH is rocm; allowed: cpu, cuda\n"
        return
    calls = done.stdout.splitlines()
    assert calls[-1] == "pip install -r requirements.txt"
    assert [("index-url" in call) for call in calls] == ([True, False] if torch == "cpu" else [False])
    if torch == "cpu":
        first = (tmp_path / "installed").read_text().splitlines()[:2]
        assert [re.match(r"\w+", line)[0] for line in first] == ["torch", "torchvision"]  # type: ignore[index]
