"""Test going back after divergence: the checkpoint chosen, what changes, what survives, and exact resumption."""

import json
from pathlib import Path

import pytest
from support.small_runs import (
    assert_same_state,
    forget_accelerator,
    last_state,
    rows,
    run_small,
    small_config,
)

from hamgan.checkpoint import (
    Progress,
    checkpoint_name,
    list_checkpoints,
    read_state,
)
from hamgan.checkpoint.progress import Rollback, read_progress
from hamgan.checkpoint.state import Snapshot, state_tensors
from hamgan.config import MonitorConfig
from hamgan.errors import Diverged
from hamgan.training.loop import Training
from hamgan.training.rollback import choose_checkpoint, commit_rollback, find_good_checkpoint, restore_earlier

pytestmark = pytest.mark.usefixtures("new_accelerator")


def healthy_start(folder: Path) -> Path:
    """Train six steps with a checkpoint every two."""
    return run_small(folder, "train.total_kimg=0.048")


RUINED = ["train.total_kimg=0.2", "train.discriminator_lr=1e38", "monitor.max_rollbacks=2"]


def ruin(folder: Path) -> str:
    """Resume the run with a learning rate that nothing survives, and return the message of its end."""
    config = small_config(folder, *RUINED)
    with pytest.raises(Diverged) as caught:
        Training(config, ["train.discriminator_lr"]).run()
    forget_accelerator()
    return str(caught.value)


def test_a_run_driven_to_divergence_rolls_back_and_gives_up_in_time(tmp_path: Path) -> None:
    """Diverge within two steps (one row) of 8 images; roll back to the newest checkpoint, then to an older one."""
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


def checkpoint_at(folder: Path, images: int, streak: int = 0) -> Path:
    """Write the counters of a checkpoint without any weights."""
    progress = Progress(images, images // 8, monitor={"streak": streak})
    return Snapshot(checkpoint_name(images), {}, {"progress": vars(progress), "scaler": None}).write(folder)


def test_the_target_is_the_newest_checkpoint_that_is_valid_and_not_suspicious(tmp_path: Path) -> None:
    first, good, damaged = (checkpoint_at(tmp_path, images) for images in (8, 16, 24))
    checkpoint_at(tmp_path, 32, streak=1)
    checkpoint_at(tmp_path, 64)
    (damaged / "state.safetensors").write_bytes(b"")
    warnings: list[str] = []
    here = Progress(40, 5)
    assert find_good_checkpoint(tmp_path, here, warnings.append) == good
    assert len(warnings) == 1
    assert f"skipping a checkpoint: {damaged}" in warnings[0]
    again = Rollback(from_kimg=0.04, to=good.name, reason="", stream=1, lr_factor=0.5)
    here.rollbacks.append(again)
    assert find_good_checkpoint(tmp_path, here, warnings.append) == first
    assert find_good_checkpoint(tmp_path / "none", here, warnings.append) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (MonitorConfig(action="stop"), "odd; the last good checkpoint is .*/00000000.008"),
        (MonitorConfig(max_rollbacks=0), "odd; already rolled back 0 times; the last good one is .*/00000000.008"),
    ],
)
def test_a_run_that_is_not_to_go_back_says_where_it_could(
    tmp_path: Path, settings: MonitorConfig, sentence: str
) -> None:
    target = checkpoint_at(tmp_path, 8)
    assert choose_checkpoint(MonitorConfig(), tmp_path, Progress(16), "odd", print) == target
    with pytest.raises(Diverged, match=sentence):
        choose_checkpoint(settings, tmp_path, Progress(16), "odd", print)
    with pytest.raises(Diverged, match="odd; there is no checkpoint to go back to: try lower learning rates"):
        choose_checkpoint(settings, tmp_path / "none", Progress(16), "odd", print)


def test_a_rollback_changes_the_one_progress_that_all_parts_read(tmp_path: Path) -> None:
    run = run_small(tmp_path, "train.total_kimg=0.032")
    training = Training(small_config(tmp_path, "train.total_kimg=0.04"))
    progress = training.progress
    progress.seconds, progress.fid["00000000.032"] = 99.0, 5.0
    target = run / "checkpoints/00000000.016"
    restore_earlier(target, training.step, progress, "odd", 0.5)
    commit_rollback(run, target, progress)
    for part in (training.monitor, training.checkpoints, training.log, training.preview):
        assert part.progress is progress
    assert (progress.images, progress.seconds, progress.fid, progress.stream) == (16, 99.0, {}, 1)
    assert progress.lr_factor == 0.5
    assert_same_state(state_tensors(training.step), last_state(run))
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["00000000.016"]
    assert read_progress(target) == progress
    assert json.loads((run / "rollbacks.jsonl").read_text()) == progress.rollbacks[0]
    training.log.drop_later_rows()
    assert [row["kimg"] for row in rows(run)] == [0.008, 0.016]
    training.lock.release()
