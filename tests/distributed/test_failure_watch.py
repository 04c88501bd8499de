"""Check that a failed process tells the others why and ends their waiting; test_other_faults.py has faults of runs."""

from pathlib import Path

import pytest
import torch
from support.two_processes import failing_process, failure_messages, in_two_processes

AVAILABLE = not torch.accelerator.is_available()


@pytest.mark.skipif(not AVAILABLE, reason="two processes of gloo, which takes CPU memory")
def test_the_second_failure_is_named_after_the_first_one(tmp_path: Path) -> None:
    first, second = in_two_processes(failure_messages)(tmp_path)
    assert first["plain"] == "OtherProcessFailed: process 1: RuntimeError: out of luck"
    assert second["plain"] == "RuntimeError: out of luck"
    assert first["raised by all"] == second["raised by all"] == "Stopped: asked to"


@pytest.mark.skipif(not AVAILABLE, reason="two processes of gloo, which takes CPU memory")
def test_a_process_that_waits_ends_with_the_other_s_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="process 0 terminated with exit code 1"):
        in_two_processes(failing_process)(tmp_path)
    assert "error: process 1: RuntimeError: out of luck; process 0 ends as well" in capfd.readouterr().err
