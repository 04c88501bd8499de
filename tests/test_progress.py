"""Check the progress bar: what it shows at which width, and that a file gets lines."""

import subprocess
import sys

import pytest
from support.small_runs import environment

from hamgan.progress import ProgressBar, duration

LOSSES = "D 1.234  G -0.456"


def line(width: int, **changes: object) -> str:
    """Return the line of a run at 12,345 of 72,000 images after 100 seconds."""
    values = {"prefix": "photos: ", "unit": "kimg", "rate": 151.2, "postfix": LOSSES, "ncols": width} | changes
    return ProgressBar.format_meter(12_345, 72_000, 100.0, **values)


def test_at_80_columns_everything_is_there() -> None:
    text = line(80)
    assert len(text) < 80
    for part in ("12.3/72.0 kimg", "151 images/s", "0:06:34 left", LOSSES):
        assert part in text


@pytest.mark.parametrize("width", range(20, 160, 7))
def test_a_narrow_terminal_loses_the_least_important_and_no_line_is_cut(width: int) -> None:
    text = line(width)
    assert len(text) < width
    order = ["12.3/72.0 kimg", "left", "images/s", "G -0.456", "17%", "photos"]
    there = [part in text for part in order if part != "left" or width > 30]
    assert there == sorted(there, reverse=True), text


def test_a_wide_terminal_has_a_bar_that_is_as_full_as_the_run() -> None:
    text = line(140)
    filled, empty = text.count("━"), text.count("╌")
    assert filled + empty == 30
    assert filled == int(30 * 12_345 / 72_000)
    assert line(140, ascii=True).count("#") == filled


def test_counts_of_images_have_no_decimals_and_slow_ones_have() -> None:
    text = ProgressBar.format_meter(1500, 10_000, 10.0, unit="images", ncols=80, rate=0.254, prefix="val: ")
    assert text.startswith("val  1,500/10,000 images  ")
    assert "0.25 images/s" in text


def test_before_the_first_image_nothing_is_claimed() -> None:
    text = ProgressBar.format_meter(0, 10, 0.0, unit="images", ncols=80)
    assert "left" not in text
    assert "/s" not in text


def test_a_file_gets_lines() -> None:
    code = """
from hamgan import progress
progress.SECONDS_BETWEEN_LINES = 0.01
import time
with progress.ProgressBar(4, "hash") as bar:
    for _ in range(4):
        time.sleep(0.02)
        bar.update()
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert [text.split("  ")[1] for text in lines][:3] == ["1/4 images", "2/4 images", "3/4 images"]


def test_durations_are_hours_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0, 59.9, 3725, 360_000)] == ["0:00:00", "0:00:59", "1:02:05", "100:00:00"]
    assert duration(float("inf")) == "?"
