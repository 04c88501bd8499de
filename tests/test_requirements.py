"""Check the requirements: every one has a floor, which `scripts/test.sh --lowest` takes."""

import subprocess

from packaging.requirements import Requirement
from support.paths import ROOT

FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))


def test_lowest_versions_are_the_floors_of_all_requirements() -> None:
    lines = [line for name in FILES for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    floors = {}
    for requirement in map(Requirement, lines):
        (floors[requirement.name],) = (spec.version for spec in requirement.specifier if spec.operator == ">=")
    command = ["bash", "-c", '. scripts/environment.sh; floors "$@"', "-", *FILES]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert dict(line.split("==") for line in found) == floors
    assert len(floors) == len(lines)
