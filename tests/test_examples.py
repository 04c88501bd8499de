"""Test the notebooks of ``examples/`` by running each as a program of its own."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.small_runs import environment, run_small

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook that hold code."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def as_program(notebook: Path) -> str:
    """Return the code of a notebook as Python; lines such as ``!hamgan train ...`` call the command, as in Jupyter."""
    lines = ["import subprocess, sys"]
    for cell in code_cells(notebook):
        for line in "".join(cell["source"]).replace("\\\n", " ").splitlines():
            if line.startswith("!"):
                program, *arguments = shlex.split(line[1:])
                assert program == "hamgan", f"{notebook.name}: this test runs no other command than hamgan: {line}"
                line = f"subprocess.run([sys.executable, '-m', 'hamgan', *{arguments}], check=True)"
            lines.append(line)
    return "\n".join(lines)


def execute(notebook: Path, folder: Path, **variables: str) -> None:
    """Run the code of a notebook in a folder; a failure shows what it printed."""
    program = folder / f"{notebook.stem}.py"
    program.write_text(as_program(notebook))
    ran = subprocess.run(
        [sys.executable, program],
        cwd=folder,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(notebook: Path) -> None:
    for cell in code_cells(notebook):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.slow
def test_sample_draws_from_a_run(tmp_path: Path) -> None:
    run = run_small(tmp_path / "trained", "data.source=fashion", "train.total_kimg=0.008")
    execute(ROOT / "examples/sample.ipynb", tmp_path, HAMGAN_RUN=str(run))


@pytest.mark.slow
def test_train_on_your_folder_leaves_a_run_with_sheets_and_a_report(tmp_path: Path) -> None:
    execute(ROOT / "examples/train_on_your_folder.ipynb", tmp_path)
    run = tmp_path / "runs" / "my_run"
    assert (run / "generator.safetensors").is_file()
    assert (run / "report.html").is_file()
    assert len(list((run / "samples").glob("*.png"))) == 2
