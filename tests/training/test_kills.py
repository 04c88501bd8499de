"""Check that runs killed again and again, at any moment, end bit for bit as the run that nobody touched.

In short by default; ``--long`` kills several hundred times. The table at the end of pytest's output counts.
"""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from safetensors.torch import load_file
from support.fault_tally import Tally
from support.faulty_runs import lives, random_kill
from support.photo_crops import crop_photographs, save_store
from support.small_runs import assert_same_state, last_state, rows

from hamgan.checkpoint import list_checkpoints

BASE = ["train.total_kimg=0.192", "log.every_kimg=0.024", "log.samples_every_kimg=0.024", "checkpoint.every_kimg=0.016"]
BASE += [
    "data.flip=true",
    "train.lecam=0.1",
    "log.sample_classes=1",
    "checkpoint.keep_last=1",
    "checkpoint.keep_best=1",
]
EVALUATES = ["eval.every_kimg=0.032", "eval.features=efficientnet-lite0", "eval.metrics=[fid]", "eval.batch_size=8"]
EVALUATES += ["eval.num_samples=8", "eval.reference_samples=16"]
HEALTHY = ["train.total_kimg=0.048", "checkpoint.every_kimg=0.016", "log.every_kimg=0.008"]
RUINED = [*HEALTHY, "train.total_kimg=0.2", "train.discriminator_lr=1e38", "monitor.max_rollbacks=2"]


class Kind(NamedTuple):
    """Describe a kind of run, and how often such runs are killed."""

    processes: int
    overrides: list[str]
    moments: list[str]
    """More of `faulty_runs.MOMENTS`, in which it is killed besides the usual ones."""
    kills: tuple[int, int]
    """In short and with --long."""
    final: int = 0
    """The code in which it ends."""


RUNS = {
    "one": Kind(1, BASE, [], (0, 150)),
    "two": Kind(2, BASE, [], (2, 110)),
    "one evaluated": Kind(1, BASE + EVALUATES, ["evaluation"] * 2, (2, 60)),
    "two evaluated": Kind(2, BASE + EVALUATES, ["evaluation"] * 2, (0, 60)),
}
GOES_BACK = Kind(1, RUINED, ["rollback"] * 8, (2, 40), final=1)
CLOCKS = ("seconds", "images_per_second", "samples", "protocol")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the option that names a store of 60 crops, which opens at once."""
    return f"data.source={save_store(crop_photographs(0, 10), tmp_path_factory.mktemp('data'))}"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, data: str) -> dict[str, Path]:
    """Return runs that nobody interrupts, each made when it is asked for."""
    return _Untouched(tmp_path_factory.mktemp("untouched"), data)


class _Untouched(dict[str, Path]):
    def __init__(self, folder: Path, data: str) -> None:
        super().__init__()
        self.folder, self.data = folder, data

    def __missing__(self, name: str) -> Path:
        kind = RUNS[name]
        lives(self.folder / name, [*kind.overrides, self.data], kind.processes, (), Tally())
        self[name] = self.folder / name / "run"
        return self[name]


def results(run: Path) -> list[dict[str, object]]:
    """Read results.jsonl without clocks and paths."""
    path = run / "results.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]


def assert_same_run(first: Path, second: Path) -> None:
    """Compare weights, optimisers, averages, losses, sheets and evaluations bit for bit; no partial file may stay."""
    assert rows(first) == rows(second)
    assert results(first) == results(second)
    assert_same_state(last_state(first), last_state(second))
    assert_same_state(*(load_file(run / "generator.safetensors") for run in (first, second)))
    kept = [[path.name for path in list_checkpoints(run / "checkpoints")] for run in (first, second)]
    assert kept[0] == kept[1]
    sheets = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (first, second)]
    assert sheets[0] == sheets[1]
    assert [path for path in second.rglob("*") if path.name.endswith((".tmp", ".partial"))] == []


def killed_runs(
    folder: Path, kind: Kind, data: str, kills: int, tally: Tally, begun: Path | None = None
) -> Iterator[Path]:
    """Yield runs in ``folder`` that have met up to eight kills each, until there have been this many kills.

    ``begun`` holds what all of them go on from. A run counts as lost until the next one is asked for.
    """
    before = tally.faults
    for seed in itertools.count():
        left = before + kills - tally.faults
        if left <= 0:
            return
        run, random = folder / f"killed {seed}", Random(f"{kind} {seed}")
        if begun is not None:
            shutil.copytree(begun, run)
        tally.runs += 1
        tally.lost += 1
        moments = (random_kill(random, kind.processes, kind.moments) for _ in range(min(8, left)))
        lives(run, [*kind.overrides, data], kind.processes, moments, tally, kind.final)
        yield run
        tally.lost -= 1
        print(tally.sentence(), flush=True)
        shutil.rmtree(run)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RUNS)
def test_killed_runs_end_as_the_untouched_one(
    untouched: dict[str, Path], data: str, name: str, tmp_path: Path, tally: Tally, long: bool
) -> None:
    kind = RUNS[name]
    if not kind.kills[long]:
        pytest.skip("with --long only")
    for folder in killed_runs(tmp_path, kind, data, kind.kills[long], tally):
        assert_same_run(untouched[name], folder / "run")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_that_goes_back_can_be_killed_while_it_does(data: str, tmp_path: Path, tally: Tally, long: bool) -> None:
    """Kill a run that returns to a checkpoint twice, then gives up: its record, rows and weights stay the same."""
    healthy, calm = tmp_path / "healthy", tmp_path / "calm"
    lives(healthy, [*HEALTHY, data], 1, (), Tally())
    shutil.copytree(healthy, calm)
    lives(calm, [*RUINED, data], 1, (), Tally(), final=1)
    for folder in killed_runs(tmp_path, GOES_BACK, data, GOES_BACK.kills[long], tally, begun=healthy):
        assert_same_run(calm / "run", folder / "run")
        assert (calm / "run/rollbacks.jsonl").read_bytes() == (folder / "run/rollbacks.jsonl").read_bytes()
