"""Check that a run folder is one wandb run through every resumption, with the user's own settings of wandb."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from support.local_hub import local_hub
from support.run_logs import log_row, log_sheet, open_log
from support.small_runs import forget_accelerator, rows, small_config, start, write_config
from support.wandb_files import OfflineRun, ended_run, offline_runs

from hamgan.config import check_intervals, config_to_dict
from hamgan.errors import ConfigError
from hamgan.tracking.trackers import images_made
from hamgan.tracking.wandb_writer import why_no_answer

LONGER = ["--log.tracker", "wandb", "--train.total_kimg", "0.4"]


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where ~/.netrc would be
    monkeypatch.setenv("WANDB_SILENT", "true")
    forget_accelerator()
    yield
    wandb.teardown()  # it keeps the settings of its first use
    forget_accelerator()


def without_own(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key != "_wandb"}


@pytest.mark.slow
def test_a_run_that_is_killed_twice_is_one_run_with_one_configuration(tmp_path: Path) -> None:
    """Kill with SIGKILL, the second time while wandb has not yet written what it knows of the first rows."""
    options: list[str | Path] = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run", *LONGER]
    for kill in range(3):
        process = start("-m", "hamgan", "train", *options, log=tmp_path / f"log{kill}.txt")
        seen, deadline = 0, time.monotonic() + 120
        while kill < 2 and seen < 6 * (kill + 1):
            path = tmp_path / "run/metrics.jsonl"
            seen = len(path.read_text().splitlines()) if path.is_file() else 0
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if kill < 2:
            # The folder of a run's files appears when wandb has begun.
            while len(offline_runs(tmp_path / "run/wandb")) <= kill:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        assert process.wait(120) == (-signal.SIGKILL if kill < 2 else 0), (tmp_path / f"log{kill}.txt").read_text()
    parts = offline_runs(tmp_path / "run/wandb")
    assert len(parts) == 3
    written = [part for part in parts if part.id]  # a part that was killed in its first seconds may hold nothing
    assert len({part.id for part in written}) == 1
    assert (tmp_path / "run/wandb_id.txt").read_text() == f"{parts[-1].id}\n"
    config = small_config(tmp_path, "log.tracker=wandb", "train.total_kimg=0.4", "data.num_classes=12")
    assert all(without_own(part.config) == config_to_dict(config) for part in written)
    assert parts[-1].config["train"]["generator_lr"] == 1e-4
    history: dict[int, dict[str, object]] = {}
    for part in parts:
        for step, row in part.history.items():
            assert history.get(step, row)["losses/d_loss"] == row["losses/d_loss"]  # made again, and the same
            history[step] = row
    expected = {round(row["kimg"] * 1000): row["d_loss"] for row in rows(tmp_path / "run")}
    assert {step: row["losses/d_loss"] for step, row in history.items()} == expected


def logged(folder: Path, *overrides: str) -> OfflineRun:
    log = open_log(folder, "log.tracker=wandb", *overrides)
    log_row(log, 1000, d_loss=0.5)
    log.close()
    tracker = log._tracker
    assert tracker is not None
    assert not tracker.failed
    return ended_run(folder / "run/wandb")


def test_without_settings_it_is_an_offline_run_named_after_the_run(tmp_path: Path) -> None:
    run = logged(tmp_path, "name=mine")
    assert (run.name, run.project, run.history[1000]["losses/d_loss"]) == ("mine", "hamgan", 0.5)


def test_the_environment_of_wandb_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "MODE": "offline",
        "API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "PROJECT": "theirs",
        "ENTITY": "team",
        "RUN_GROUP": "sweep",
        "NAME": "label",
        "TAGS": "a,b",
        "RUN_ID": "chosen",
        "RESUME": "never",
        "DIR": str(tmp_path / "elsewhere"),
    }
    (tmp_path / "elsewhere").mkdir()
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    log = open_log(tmp_path, "log.tracker=wandb")
    log.close()
    run = ended_run(tmp_path / "elsewhere/wandb")
    assert (run.project, run.entity, run.group, run.name, run.id) == ("theirs", "team", "sweep", "label", "chosen")
    assert run.tags == ["a", "b"]
    assert not (tmp_path / "run/wandb").exists()


def test_a_project_in_the_configuration_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert logged(tmp_path, "log.project=ours").project == "ours"


def test_disabled_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log = open_log(tmp_path, "log.tracker=wandb")
    log_row(log, 1000, d_loss=0.5)
    log.close()
    assert not list((tmp_path / "run").rglob("*.wandb"))


def test_a_server_that_is_away_is_told_with_the_reason_and_the_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train in a process of its own: wandb remembers in a process where it has logged in."""
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "4")
    options: list[str | Path] = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run", *LONGER[:2]]
    process = start("-m", "hamgan", "train", *options, log=tmp_path / "log.txt", WANDB_MODE="online")
    said = (tmp_path / "log.txt").read_text
    assert process.wait(120) == 0, said()
    warnings = [line for line in said().splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1, said()
    assert warnings[0].startswith("warning: wandb cannot be reached (")
    assert warnings[0].endswith("; the run is written to files for `wandb sync`")
    assert len(offline_runs(tmp_path / "run/wandb")[-1].history) == 5


def test_a_server_is_there_as_soon_as_it_answers_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "timed out" in str(why_no_answer(f"http://{address}", 1))
    assert "refused" in str(why_no_answer(f"http://{address}", 1))
    with local_hub() as hub:
        assert why_no_answer(f"{hub.address}/none", 0) is None  # 404
        assert why_no_answer(hub.address.replace("http", "https"), 5) is None  # wrong TLS, which wandb may accept


def test_a_tracker_that_comes_later_gets_everything(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for images in (1000, 2000):
        log_row(log, images, d_loss=images / 1000)
    log_sheet(log, 2000)
    log.close()
    shutil.copy(log.folder / "samples/00000002.png", log.folder / "samples/mine.png")
    again = open_log(tmp_path, "log.tracker=wandb", images=2000)
    log_row(again, 3000, d_loss=3.0)
    again.close()
    run = ended_run(tmp_path / "run/wandb")
    assert {step: row["losses/d_loss"] for step, row in run.history.items()} == {1000: 1.0, 2000: 2.0, 3000: 3.0}
    assert run.history[2000]["samples/_type"] == "image-file"


def test_evaluations_stand_in_the_summary_with_their_protocol(tmp_path: Path) -> None:
    log = open_log(tmp_path, "log.tracker=wandb")
    for images, fid, count in ((1000, 6.0, 10_000), (2000, 7.0, 50_000), (3000, 8.0, 50_000)):
        log.progress.images = images
        # As `protocol_line` words it: the position is a part of it.
        row = {"fid": fid, "kimg": images / 1000, "num_samples": count, "protocol": f"{count} samples, {images} images"}
        log.evaluation(row | {"class_table": [1]})
        with (log.folder / "results.jsonl").open("a") as file:  # another process, of `hamgan evaluate`, was killed
            file.write('{"fid": 1.0, "kim\n')
    log.close()
    run = ended_run(tmp_path / "run/wandb")
    same = {"num_samples": 50_000}
    assert run.summary["evaluation/last"] == same | {"fid": 8.0, "kimg": 3.0, "protocol": "50000 samples, 3000 images"}
    assert run.summary["evaluation/best"] == same | {"fid": 7.0, "kimg": 2.0, "protocol": "50000 samples, 2000 images"}


def test_the_best_generator_is_an_artifact_where_that_is_wanted(tmp_path: Path) -> None:
    log = open_log(tmp_path, "log.tracker=wandb", "log.artifact=true")
    (log.folder / "generator.safetensors").write_bytes(b"weights")
    log.progress.fid = {"00000001": 9.0, "00000002": 7.0, "00000003": 8.0}
    for images in (1000, 2000, 3000):
        log.weights_written(images)
    log.close()
    run = ended_run(tmp_path / "run/wandb")
    assert list(run.artifacts) == [f"{run.id}-generator"]
    assert "measure it again with other seeds" in run.artifacts[f"{run.id}-generator"]
    assert not list(log.folder.glob(".best*"))


def test_an_artifact_needs_wandb_and_evaluations_to_choose_by(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.artifact needs log\.tracker: wandb; it is none"):
        small_config(tmp_path, "log.artifact=true")
    for options, needed in (([], "eval.every_kimg"), (["eval.every_kimg=1", "eval.metrics=[is]"], "fid among eval")):
        config = small_config(tmp_path, "log.artifact=true", "log.tracker=wandb", *options)
        with pytest.raises(ConfigError, match=rf"^log\.artifact uploads .*{needed}"):
            check_intervals(config)
    check_intervals(small_config(tmp_path, "log.artifact=true", "log.tracker=wandb", "eval.every_kimg=1"))


def test_the_step_never_falls() -> None:
    """Count what two returns have abandoned: from 100 to 80, then from 120 to 50."""
    made = [
        {"from_kimg": 0.1, "to": "00000000.080", "reason": "", "stream": 1, "lr_factor": 1.0},
        {"from_kimg": 0.12, "to": "00000000.050", "reason": "", "stream": 2, "lr_factor": 1.0},
    ]
    assert [images_made(images, made[:0]) for images in (80, 100)] == [80, 100]  # type: ignore[arg-type]
    assert [images_made(images, made[:1]) for images in (80, 90, 120)] == [80, 110, 140]  # type: ignore[arg-type]
    assert [images_made(images, made) for images in (40, 50, 60, 90)] == [40, 50, 150, 180]  # type: ignore[arg-type]
