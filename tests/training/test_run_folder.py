"""Check that a run folder takes the same run, once at a time, and other values only by name, which it records."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.prepared import encoded
from support.small_runs import (
    rows,
    run_small,
    small_config,
)

from hamgan.checkpoint import (
    list_checkpoints,
)
from hamgan.config import load_config, save_config
from hamgan.errors import ConfigError
from hamgan.training.loop import Training
from hamgan.training.run_folder import FolderLock, check_same_run

pytestmark = pytest.mark.usefixtures("new_accelerator")


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


def test_another_configuration_is_refused_with_the_differences(tmp_path: Path) -> None:
    run = run_small(tmp_path, "train.total_kimg=0.008")
    stored = (run / "config.yaml").read_text()
    with pytest.raises(ConfigError) as caught:
        Training(small_config(tmp_path, "train.generator_lr=0.5", "generator.hamburger.rank=5", "seed=2"))
    message = str(caught.value)
    assert f"{run} holds a run with another configuration" in message
    assert message.splitlines()[1:5] == [
        "  key                       in the folder  now",
        "  seed                      0              2",
        "  generator.hamburger.rank  4              5",
        "  train.generator_lr        0.0001         0.5",
    ]
    assert "--override-resume seed --override-resume generator.hamburger.rank --override-resume" in message
    assert (run / "config.yaml").read_text() == stored


def test_intervals_length_and_tracker_may_change(tmp_path: Path) -> None:
    run_small(tmp_path, "train.total_kimg=0.016")
    changes = ["train.total_kimg=0.024", "log.every_kimg=0.024", "checkpoint.keep_last=1", "checkpoint.every_kimg=1"]
    run = run_small(tmp_path, *changes, "name=renamed", "data.prefetch=1", "train.threads=2", "eval.num_samples=10")
    assert [row["kimg"] for row in rows(run)] == [0.008, 0.016, 0.024]
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["00000000.024"]
    assert load_config(run / "config.yaml").name == "renamed"


def test_a_run_whose_learning_rate_falls_may_be_longer_which_is_said_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_small(tmp_path, "train.lr_schedule=linear", "train.total_kimg=0.016")
    assert [row["d_lr"] for row in rows(run)] == pytest.approx([4e-4, 2e-4])
    assert "length " not in capsys.readouterr().err
    run_small(tmp_path, "train.lr_schedule=linear", "train.total_kimg=0.032")
    assert (
        "length    0.032 kimg, was 0.016: schedules end at the new end, so at 0.016 kimg g_lr goes from 0 to 5e-05, "
        in (capsys.readouterr().err)
    )
    assert [row["d_lr"] for row in rows(run)] == pytest.approx([4e-4, 2e-4, 2e-4, 1e-4])
    record = json.loads((run / "overrides.jsonl").read_text())
    assert (record["key"], record["before"], record["after"]) == ("train.total_kimg", 0.016, 0.032)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds no run: there is thesis.txt. Move that away, .* --run_dir .*run-2$"):
        run_small(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_crash_before_the_first_file_does_not_lock_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.yaml.99.tmp").write_text("name: ha")
    assert (run_small(tmp_path, "train.total_kimg=0.008") / "generator.safetensors").is_file()


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    first.acquire()
    with pytest.raises(ConfigError, match=f"is being trained by process {os.getpid()} on "):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_folder_that_cannot_be_made_is_the_system_s_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        FolderLock(tmp_path / "file" / "run").acquire()


@pytest.mark.parametrize("key", ["checkpoint.keep_best", "checkpoint.keep_last", "checkpoint.every_kimg"])
def test_keeping_all_is_not_spelt_minus_one(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} is -1.*; allowed: 0 and above"):
        Training(small_config(tmp_path, f"{key}=-1"))


def test_a_section_may_be_overridden_and_only_what_differs_is_returned(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    config.folder.mkdir()
    assert check_same_run(config.folder, config) == {}
    save_config(config, config.folder / "config.yaml")
    changed = small_config(tmp_path, "train.generator_lr=0.5", "train.adam_eps=0.1", "log.every_kimg=1")
    found = check_same_run(config.folder, changed, ["train"])
    assert found == {"train.adam_eps": (1e-6, 0.1), "train.generator_lr": (1e-4, 0.5)}
    with pytest.raises(ConfigError, match=r"train\.adam_eps +1e-06 +0\.1\n"):
        check_same_run(config.folder, changed, ["train.generator_lr"])


def test_a_new_name_that_is_free_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("small", "small-2"):
        (tmp_path / "runs" / name / "samples").mkdir(parents=True)
    config = replace(small_config(tmp_path), name="small", run_dir=None)
    with pytest.raises(ConfigError, match=r"runs/small .*there is samples\. .*: --name small-3$"):
        check_same_run(config.folder, config)


def test_data_in_another_place_keeps_its_class_numbers(tmp_path: Path) -> None:
    """Move a run from the embedded articles to a folder of them, whose classes come in alphabetical order."""
    run = run_small(tmp_path, "data.source=fashion", "train.total_kimg=0.008")
    names = json.loads((run / "classes.json").read_text())
    for name in names:
        (tmp_path / "data/train" / name).mkdir(parents=True)
        (tmp_path / "data/train" / name / "0.jpg").write_bytes(encoded("cat", names.index(name)))
    options = [f"data.source={tmp_path / 'data'}", "train.total_kimg=0.016"]
    Training(small_config(tmp_path, *options), ["data.source"]).run()
    assert sorted(names) != names == json.loads((run / "classes.json").read_text())
