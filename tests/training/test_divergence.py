"""Test the collapse monitor: faults that it catches, how soon, and healthy values that it leaves alone."""

import json
from typing import Any

import pytest

from hamgan.checkpoint import Progress
from hamgan.config import MonitorConfig
from hamgan.training.divergence import Monitor

STEADY = {"logits_real": 1.0, "logits_fake": -1.0, "g_gradient_norm": 2.0, "d_gradient_norm": 3.0}
STEADY |= {"spread_real": 0.4, "spread_fake": 0.3}


def settled(**config: Any) -> Monitor:
    """Return a monitor that has seen ten steady rows."""
    monitor = Monitor(MonitorConfig(**config), Progress())
    for _ in range(10):
        assert monitor.check_row(STEADY | {"sigmas": {"g.linear": 1.5}}) is None
    return monitor


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"logits_real": 60.0}, "margin is 61"),
        ({"g_gradient_norm": 50.0}, "g_gradient_norm is 50, usual is 2"),
        ({"spread_fake": 0.01}, "the spread of a batch of generated images"),
        ({"sigmas": {"g.linear": 4.0}}, "sigma of g.linear is 4, usual is 1.5"),
    ],
)
def test_what_is_out_of_line_three_rows_in_a_row_is_an_alarm(change: dict[str, Any], name: str) -> None:
    monitor = settled()
    row = STEADY | change
    assert [monitor.check_row(row), monitor.check_row(row)] == [None, None]
    assert monitor.progress.suspicious
    alarm = monitor.check_row(row)
    assert alarm is not None
    assert not alarm.broken
    assert name in alarm.reason


def test_a_dead_discriminator_is_an_alarm_from_the_first_row_on() -> None:
    monitor = Monitor(MonitorConfig(), Progress())
    row = STEADY | {"g_gradient_norm": 0.0, "d_gradient_norm": 0.0}
    alarms = [monitor.check_row(row) for _ in range(3)]
    assert alarms[:2] == [None, None]
    assert alarms[2] is not None
    assert alarms[2].reason == "G gets no gradient: D answers the same to all images, 3 rows in a row"
    assert monitor.progress.monitor.get("history") is None


def test_single_spikes_are_not() -> None:
    monitor = settled()
    for spike in (True, True, False) * 5:
        assert monitor.check_row(STEADY | {"g_gradient_norm": 1e5 if spike else 2.0}) is None
    assert not monitor.progress.suspicious


def test_what_is_not_finite_is_an_alarm_at_once() -> None:
    alarm = Monitor(MonitorConfig(), Progress()).check_row(
        STEADY | {"d_loss": float("nan"), "sigmas": {"d.linear": float("inf")}}
    )
    assert alarm is not None
    assert alarm.broken
    assert alarm.reason == "d_loss, sigma of d.linear are not finite"


def test_a_class_that_has_lost_its_spread_and_a_fid_that_jumps_are_alarms() -> None:
    monitor = Monitor(MonitorConfig(), Progress())
    assert [monitor.check_sheet(value) for value in (0.2, 0.15, 0.2, 0.18, 0.2)] == [None] * 5
    assert monitor.check_sheet(0.01) is not None
    assert monitor.check_sheet(0.1) is None
    assert monitor.check_fid(50.0) is None
    monitor.progress.fid = {"00000001": 30.0, "00000002": 26.0}
    assert monitor.check_fid(50.0) is None
    assert monitor.check_fid(53.0) is not None


def test_its_memory_survives_json() -> None:
    monitor = settled()
    other = Monitor(MonitorConfig(), Progress(**json.loads(json.dumps(vars(monitor.progress)))))
    for row in (STEADY | {"g_gradient_norm": 50.0}, STEADY, STEADY | {"logits_real": 99.0}):
        assert monitor.check_row(row) == other.check_row(row)
        assert monitor.progress == other.progress
