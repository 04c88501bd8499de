"""Check that checkpoints are listed, passed over when damaged, and deleted by the rules of rotation."""

from pathlib import Path

import pytest
from support.training_steps import copies

from hamgan.checkpoint import Progress, checkpoint_name, latest_checkpoint, list_checkpoints
from hamgan.checkpoint.rotation import rotate
from hamgan.config import CheckpointConfig
from hamgan.errors import CheckpointError
from hamgan.files import remove_leftovers
from hamgan.training.step import GanStep


def test_names_sort_by_images() -> None:
    names = [checkpoint_name(images) for images in (0, 8, 1_000, 1_024_000, 1_024_512)]
    assert names == ["00000000", "00000000.008", "00000001", "00001024", "00001024.512"]
    assert sorted(names) == names


def test_only_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    for name in ("00000010", "00000002.500", "00000002", "1st try", "notes", ".00000011.7.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "00000099").touch()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["00000002", "00000002.500", "00000010"]
    assert list_checkpoints(tmp_path / "missing") == []


def truncate(path: Path) -> None:
    data = (path / "state.safetensors").read_bytes()
    (path / "state.safetensors").write_bytes(data[: len(data) // 2])


def test_a_damaged_checkpoint_is_named_and_passed_over(saved: tuple[Path, GanStep], tmp_path: Path) -> None:
    older, newer, newest = copies(saved[0], tmp_path, "00000001", "00000002", "00000003")
    truncate(newest)
    (newer / "state.json").unlink()
    warnings: list[str] = []
    assert latest_checkpoint(tmp_path, warnings.append) == older
    assert "00000003/state.safetensors is damaged" in warnings[0]
    assert "00000002 is incomplete" in warnings[1]
    truncate(older)
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints"):
        latest_checkpoint(tmp_path, warnings.append)
    assert latest_checkpoint(tmp_path / "none") is None


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".00000001.99.tmp").mkdir()
    (tmp_path / ".00000001.99.tmp/state.safetensors").touch()
    (tmp_path / ".generator.safetensors.99.tmp").touch()
    (tmp_path / "00000001").mkdir()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")
    assert [item.name for item in tmp_path.iterdir()] == ["00000001"]


def test_rotation_keeps_the_newest_the_best_and_milestones(tmp_path: Path) -> None:
    """Save a checkpoint every 480 images in steps of 96; milestones are first at or after 1000, 2000, ... images."""
    images = [*range(480, 4321, 480), 1056, 2016, 3072]
    for count in images:
        (tmp_path / checkpoint_name(count)).mkdir()
    fid = {checkpoint_name(480): 9.0, checkpoint_name(960): 5.0, checkpoint_name(2400): 7.0, "00000099": 1.0}
    ranking = Progress(fid=fid).ranking
    rotate(tmp_path, CheckpointConfig(keep_last=2, keep_best=2, milestone_kimg=1.0), ranking, images_per_step=96)
    kept = [round(float(path.name) * 1000) for path in list_checkpoints(tmp_path)]
    assert kept == [960, 1056, 2016, 2400, 3072, 3840, 4320]
    rotate(tmp_path, CheckpointConfig(keep_last=0, keep_best=0), [])
    assert [path.name for path in list_checkpoints(tmp_path)] == [checkpoint_name(4320)]


def test_scores_of_another_way_of_measuring_come_last() -> None:
    """Measure a segmenter in a second way, and in a third: the newest scores decide, then those before them."""
    progress = Progress()
    assert not progress.measure_by("whole")
    progress.miou = {"00000001": 0.3, "00000002": 0.4}
    assert not progress.measure_by("whole")
    assert progress.ranking == ["00000002", "00000001"]
    assert progress.measure_by("by windows")
    progress.miou["00000003"] = 0.2
    assert progress.ranking == ["00000003", "00000002", "00000001"]
    assert progress.measure_by("mirrored too")
    assert (progress.ranking, progress.miou) == (["00000003", "00000002", "00000001"], {})
