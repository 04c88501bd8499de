"""Test how much memory a process gives back to the system when its tensors are freed, in processes of their own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from hamgan.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
torch.set_num_threads(1)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
tensors = [torch.ones(2**20) for _ in range(8)]  # 8 times 4 MiB
before = resident()
del tensors
print(before - resident())
"""


def bytes_given_back(mode: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")


def test_freed_tensors_are_used_again() -> None:
    assert bytes_given_back("keep") < 2**22
    assert bytes_given_back("default") > 7 * 2**22


def test_a_users_own_setting_stays() -> None:
    assert bytes_given_back("keep", MALLOC_MMAP_THRESHOLD_="131072") > 7 * 2**22
