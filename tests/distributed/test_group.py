"""Check that two real processes (gloo) agree, add and gather, and that one process does the same alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.small_runs import forget_accelerator
from support.two_processes import ROWS, ended_group, failed_group, group_answers, in_two_processes

from hamgan.distributed.group import Processes


@pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes of gloo, which takes CPU memory")
def test_two_processes_answer_alike(tmp_path: Path) -> None:
    first, second = in_two_processes(group_answers)(tmp_path)
    assert (first.pop("world"), second.pop("world")) == ((0, 2, True), (1, 2, False))
    assert (first.pop("share"), second.pop("share")) == ([0, 1], [2, 3, 4])
    assert first == second
    assert first == {
        "device": "cpu:0",
        "from main": {"best": Path("checkpoint of 0")},
        "mean": [1.5, 3.5],
        "sum": [3.0, 20.0],
        "rows": ROWS.tolist(),
        "any": [True, False],
    }


@pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes of gloo, which takes CPU memory")
@pytest.mark.parametrize("command", [ended_group, failed_group])
def test_the_group_ends_with_the_command_and_with_an_error(tmp_path: Path, command: Callable[[], list[int]]) -> None:
    assert in_two_processes(command)(tmp_path) == [[2, 1]] * 2


def test_one_process_answers_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_accelerator()
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert group_answers() == {
        "world": (0, 1, True),
        "share": [0, 1, 2, 3, 4],
        "device": None,
        "from main": {"best": Path("checkpoint of 0")},
        "mean": [1.0, 3.0],
        "sum": [1.0, 10.0],
        "rows": ROWS.tolist(),
        "any": [False, False],
    }


@pytest.mark.parametrize(("total", "size"), [(10, 3), (2, 4), (0, 2)])
def test_shares_are_contiguous_and_of_even_size(total: int, size: int) -> None:
    shares = [Processes(index, size).share(total) for index in range(size)]
    assert [index for share in shares for index in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
