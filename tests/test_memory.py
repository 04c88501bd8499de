"""Page faults of tensors that come and go, in processes of their own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from hamgan.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
import torch
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step = lambda: [torch.ones(2**20) for _ in range(8)]  # 8 times 4 MiB, i.e. 1,024 pages
for _ in range(3):
    step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def page_faults(mode: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")


def test_freed_tensors_are_used_again() -> None:
    # 160 tensors of 1,024 pages: less than a fault in every 100 pages, where pages are huge and where they are not.
    assert page_faults("keep") < 1_000
    assert page_faults("keep") < page_faults("default") / 5


def test_a_users_own_setting_stays() -> None:
    assert page_faults("keep", MALLOC_MMAP_THRESHOLD_="131072") > 5 * page_faults("keep")
