"""Runs that are killed, again and again and at any moment, end as the run that nobody touched: bit for bit.

In short by default; ``--long`` kills some 200 times and more. The terminal's summary counts.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from faulty_runs import Tally, lives, random_kill
from photo_crops import crop_photographs, save_store
from safetensors.torch import load_file
from small_runs import assert_same_state, last_state, rows

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
RUNS = {"one": (1, BASE), "evaluated": (1, BASE + EVALUATES), "two": (2, BASE), "two evaluated": (2, BASE + EVALUATES)}
CLOCKS = ("seconds", "images_per_second", "samples", "protocol")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Short: a run of each kind. Long: 27 runs of up to 12 kills."""
    if "life_of" in metafunc.fixturenames:
        long = metafunc.config.getoption("--long")
        repeats = {"one": 12, "two": 8, "evaluated": 5, "two evaluated": 2} if long else {"evaluated": 1, "two": 1}
        metafunc.parametrize("life_of", [(name, seed) for name, count in repeats.items() for seed in range(count)])


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """Counts over all tests here, shown at the end."""
    counted = Tally()
    yield counted
    print(f"\nfaults: {counted.sentence()}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that names a store of 60 crops: it opens at once."""
    return f"data.source={save_store(crop_photographs(0, 10), tmp_path_factory.mktemp('data'))}"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, data: str) -> dict[str, Path]:
    """Runs that nobody interrupts, made when they are asked for."""
    return _Untouched(tmp_path_factory.mktemp("untouched"), data)


class _Untouched(dict[str, Path]):
    def __init__(self, folder: Path, data: str) -> None:
        super().__init__()
        self.folder, self.data = folder, data

    def __missing__(self, name: str) -> Path:
        processes, overrides = RUNS[name]
        lives(self.folder / name, [*overrides, self.data], processes, (), Tally())
        self[name] = self.folder / name / "run"
        return self[name]


def results(run: Path) -> list[dict[str, object]]:
    """results.jsonl without clocks and paths."""
    path = run / "results.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimisers, averages, losses, sheets and evaluations bit for bit, and nothing left lying about."""
    assert rows(first) == rows(second)
    assert results(first) == results(second)
    assert_same_state(last_state(first), last_state(second))
    assert_same_state(*(load_file(run / "generator.safetensors") for run in (first, second)))
    kept = [[path.name for path in list_checkpoints(run / "checkpoints")] for run in (first, second)]
    assert kept[0] == kept[1]
    sheets = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (first, second)]
    assert sheets[0] == sheets[1]
    assert [path for path in second.rglob("*") if path.name.endswith((".tmp", ".partial"))] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_runs_end_as_the_untouched_one(
    untouched: dict[str, Path], data: str, life_of: tuple[str, int], tmp_path: Path, tally: Tally, long: bool
) -> None:
    name, seed = life_of
    processes, overrides = RUNS[name]
    random = Random(f"{name} {seed}")
    expected = untouched[name]
    kills = (
        random_kill(random, processes, ["evaluation"] * 2 * ("evaluated" in name)) for _ in range(8 if long else 3)
    )
    tally.runs += 1
    tally.lost += 1
    lives(tmp_path, [*overrides, data], processes, kills, tally)
    assert_same_run(expected, tmp_path / "run")
    tally.lost -= 1
    print(tally.sentence())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_run_that_goes_back_can_be_killed_while_it_does(data: str, tmp_path: Path, tally: Tally, long: bool) -> None:
    """Twice it returns to a checkpoint, then it gives up: with the same record, rows and weights after any kills."""
    healthy, calm = tmp_path / "healthy", tmp_path / "calm"
    lives(healthy, [*HEALTHY, data], 1, (), Tally())
    shutil.copytree(healthy, calm)
    lives(calm, [*RUINED, data], 1, (), Tally(), final=1)
    for seed in range(4 if long else 1):
        random, folder = Random(seed), Path(shutil.copytree(healthy, tmp_path / str(seed)))
        kills = [random_kill(random, 1, ["rollback"] * 8) for _ in range(10 if long else 4)]
        tally.runs += 1
        tally.lost += 1
        lives(folder, [*RUINED, data], 1, kills, tally, final=1)
        assert_same_run(calm / "run", folder / "run")
        assert (calm / "run/rollbacks.jsonl").read_bytes() == (folder / "run/rollbacks.jsonl").read_bytes()
        tally.lost -= 1
        print(tally.sentence())
