"""Check that sharing out work among threads leaves the caller's own threads as they were."""

import os

import pytest
import torch

from hamgan.distributed.cores import core_count, map_on_cores


@pytest.fixture
def _two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_parts_are_worked_on_in_order_by_threads_of_one_core() -> None:
    found = map_on_cores(3, lambda part: (part, torch.get_num_threads()), range(20))
    assert [part for part, _ in found] == list(range(20))
    assert {threads for _, threads in found} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.timeout(20)
def test_a_part_that_shares_out_work_of_its_own_does_not_wait_for_itself() -> None:
    found = map_on_cores(2, lambda first: map_on_cores(2, lambda second: first * second, range(3)), range(4))
    assert found == [[0, 0, 0], [0, 1, 2], [0, 2, 4], [0, 3, 6]]


def test_an_error_in_a_part_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        map_on_cores(2, lambda part: 1 // part, [1, 0])
    assert torch.get_num_threads() == 1


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    allowed = os.sched_getaffinity(0)
    assert core_count() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert core_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * len(allowed)))
    assert core_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert core_count() == 5
