"""The collapse monitor and the rollback: what is caught, how soon, what is left alone, and exact resumption."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import assert_same_state, forget_accelerator, last_state, rows, run_small, small_config

from hamgan.checkpoint import list_checkpoints, read_state
from hamgan.config import MonitorConfig, load_config
from hamgan.errors import ConfigError, Diverged
from hamgan.training.divergence import Monitor
from hamgan.training.loop import Training

STEADY = {"logits_real": 1.0, "logits_fake": -1.0, "g_gradient_norm": 2.0, "d_gradient_norm": 3.0}
STEADY |= {"spread_real": 0.4, "spread_fake": 0.3}


@pytest.fixture(autouse=True)
def _new_accelerator() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


def settled(**config: Any) -> Monitor:
    """A monitor that has seen ten steady rows."""
    monitor = Monitor(MonitorConfig(**config), {})
    for _ in range(10):
        assert monitor.judge(STEADY | {"sigmas": {"g.linear": 1.5}}) is None
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
    assert [monitor.judge(row), monitor.judge(row)] == [None, None]
    assert monitor.suspicious
    alarm = monitor.judge(row)
    assert alarm is not None
    assert not alarm.broken
    assert name in alarm.reason


def test_a_dead_discriminator_is_an_alarm_from_the_first_row_on() -> None:
    monitor = Monitor(MonitorConfig(), {})
    row = STEADY | {"g_gradient_norm": 0.0, "d_gradient_norm": 0.0}
    alarms = [monitor.judge(row) for _ in range(3)]
    assert alarms[:2] == [None, None]
    assert alarms[2] is not None
    assert alarms[2].reason == "G gets no gradient: D answers the same to all images, 3 rows in a row"
    assert monitor.memory.get("history") is None


def test_single_spikes_are_not() -> None:
    monitor = settled()
    for spike in (True, True, False) * 5:
        assert monitor.judge(STEADY | {"g_gradient_norm": 1e5 if spike else 2.0}) is None
    assert not monitor.suspicious


def test_what_is_not_finite_is_an_alarm_at_once() -> None:
    alarm = Monitor(MonitorConfig(), {}).judge(STEADY | {"d_loss": float("nan"), "sigmas": {"d.linear": float("inf")}})
    assert alarm is not None
    assert alarm.broken
    assert alarm.reason == "d_loss, sigma of d.linear are not finite"


def test_a_class_that_has_lost_its_spread_and_a_fid_that_jumps_are_alarms() -> None:
    monitor = Monitor(MonitorConfig(), {})
    assert [monitor.judge_sheet(value) for value in (0.2, 0.15, 0.2, 0.18, 0.2)] == [None] * 5
    assert monitor.judge_sheet(0.01) is not None
    assert monitor.judge_sheet(0.1) is None
    assert monitor.judge_fid(50.0, []) is None
    assert monitor.judge_fid(50.0, [30.0, 26.0]) is None
    assert monitor.judge_fid(53.0, [30.0, 26.0]) is not None


def test_its_memory_survives_json() -> None:
    monitor = settled()
    other = Monitor(MonitorConfig(), json.loads(json.dumps(monitor.memory)))
    for row in (STEADY | {"g_gradient_norm": 50.0}, STEADY, STEADY | {"logits_real": 99.0}):
        assert monitor.judge(row) == other.judge(row)
        assert monitor.memory == other.memory


def healthy_start(folder: Path) -> Path:
    """Six steps with a checkpoint every two."""
    return run_small(folder, "train.total_kimg=0.048")


RUINED = ["train.total_kimg=0.2", "train.discriminator_lr=1e38", "monitor.max_rollbacks=2"]


def ruin(folder: Path) -> str:
    """The same run with a learning rate that nothing survives."""
    config = small_config(folder, *RUINED)
    with pytest.raises(Diverged) as caught:
        Training(config, ["train.discriminator_lr"]).run()
    forget_accelerator()
    return str(caught.value)


def test_a_run_driven_to_divergence_rolls_back_and_gives_up_in_time(tmp_path: Path) -> None:
    """Caught within two steps (one row) of 8 images; the first rollback goes to the newest, the second one further."""
    run = healthy_start(tmp_path)
    message = ruin(tmp_path)
    assert "already rolled back 2 times" in message
    records = [json.loads(line) for line in (run / "rollbacks.jsonl").read_text().splitlines()]
    assert [(record["to"], record["stream"]) for record in records] == [("00000000.048", 1), ("00000000.032", 2)]
    assert all(record["from_kimg"] <= (48 + 16) / 1000 for record in records)
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["00000000.032"]
    assert len(read_state(run / "checkpoints/00000000.032")["progress"]["rollbacks"]) == 2
    assert [row["kimg"] for row in rows(run)] == [0.008, 0.016, 0.024, 0.032]


def test_after_a_rollback_data_and_noise_are_others_and_resume_exactly(tmp_path: Path) -> None:
    runs = []
    for name in ("through", "interrupted"):
        run = healthy_start(tmp_path / name)
        ruin(tmp_path / name)
        healthy = ["train.total_kimg=0.064"]
        lengths = [healthy] if name == "through" else [["train.total_kimg=0.048"], healthy]
        for options in lengths:
            Training(small_config(tmp_path / name, *options), ["train"]).run()
            forget_accelerator()
        runs.append(run)
    through, interrupted = runs
    assert_same_state(last_state(through), last_state(interrupted))
    assert rows(through) == rows(interrupted)
    never_ruined = rows(run_small(tmp_path / "plain", "train.total_kimg=0.064"))
    assert rows(through)[:4] == never_ruined[:4]
    assert rows(through)[4]["d_loss"] != never_ruined[4]["d_loss"]


def test_override_resume_is_recorded_and_an_unknown_key_is_refused(tmp_path: Path) -> None:
    run = run_small(tmp_path, "train.total_kimg=0.016")
    config = small_config(tmp_path, "train.total_kimg=0.024", "train.generator_lr=5e-4")
    with pytest.raises(ConfigError, match=r"--override-resume train\.generator_lr"):
        Training(config)
    with pytest.raises(ConfigError, match=r"unknown key `train\.lr` in --override-resume; did you mean"):
        Training(config, ["train.lr"])
    Training(config, ["train.generator_lr"]).run()
    row = json.loads((run / "overrides.jsonl").read_text())
    assert {key: row[key] for key in ("kimg", "key", "before", "after")} == {
        "kimg": 0.016,
        "key": "train.generator_lr",
        "before": 1e-4,
        "after": 5e-4,
    }
    assert load_config(run / "config.yaml").train.generator_lr == 5e-4
    assert rows(run)[-1]["g_lr"] == 5e-4


def test_a_second_launch_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path, "train.total_kimg=0.008")
    training = Training(config)
    with pytest.raises(ConfigError, match=r"is being trained by process \d+ on .* since .*; stop it first"):
        Training(config)
    training.run()
    assert list_checkpoints(config.folder / "checkpoints") != []
    Training(config).run()
