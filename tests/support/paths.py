"""Name the folders of the checkout that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


GOLDEN = ROOT / "tests" / "golden"


def golden_file(relative: str) -> Path:
    """Return the path of a recorded file such as ``hamgan_tf/ham_nmf.npz``; fail the test if it is missing."""
    return GOLDEN / relative
