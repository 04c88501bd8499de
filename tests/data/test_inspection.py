"""Check that `hamgan prepare inspect` shows a store's content and any change, and that the help names every command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.prepared import call_command, images_of, write_classes

from hamgan.errors import DataError


@pytest.fixture
def store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    write_classes(tmp_path / "source" / "train", {"cat": 9, "cup": 3})
    write_classes(tmp_path / "source" / "val", {"cat": 1, "cup": 1}, first=20)
    call_command("--source", tmp_path / "source", "--output", tmp_path / "store", "--resolution", 32, "--workers", 1)
    capsys.readouterr()
    return tmp_path / "store"


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call_command("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "inspect describe or check a store" in text
    assert "merge merge the parts of a store that --shard i/n made" in text
    assert "--output STORE" in text


@pytest.mark.parametrize(("given", "missing"), [([], "source"), (["--source", "photos"], "output")])
def test_a_missing_option_gets_a_sentence(given: list[str], missing: str) -> None:
    with pytest.raises(DataError, match=f"--{missing} is missing"):
        call_command(*given)


def test_counts_colours_and_histogram_are_shown(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("inspect", store)
    text = capsys.readouterr().out
    assert "classes     2\n" in text
    assert "prepared    32 px, crop centre, filter lanczos, colour profiles converted to sRGB\n" in text
    assert "train       12 images, sha256 " in text
    lines = [line.split() for line in text.splitlines()]
    assert ["cat", "9", "#" * 30] in lines
    assert ["cup", "3", "#" * 10] in lines
    call_command("inspect", store, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["val"]["histogram"] == {"cat": 1, "cup": 1}
    pixels = images_of(store)[0].reshape(-1, 3).astype(float)
    assert np.allclose(report["splits"]["train"]["mean"], pixels.mean(0), atol=1e-3)
    assert np.allclose(report["splits"]["train"]["deviation"], pixels.std(0), atol=1e-3)


def test_a_contact_sheet_shows_the_images_of_a_class(store: Path, tmp_path: Path) -> None:
    call_command("inspect", store, "--sheets", tmp_path / "sheets")
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["0000_cat.png", "0001_cup.png"]
    sheet = np.asarray(Image.open(tmp_path / "sheets/0000_cat.png"))
    images, labels = images_of(store)
    cats = images[labels == 0]
    assert sheet.shape == (64, 256, 3)
    assert np.array_equal(sheet[:32, 32:64], cats[1])
    assert np.array_equal(sheet[32:, :32], cats[8])
    assert (sheet[32:, 32:] == 255).all()


def test_changed_pixels_and_labels_are_found(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("inspect", store, "--verify")
    assert "every hash fits" in capsys.readouterr().out
    labels = images_of(store)[1]
    np.save(store / "train/labels.npy", labels[::-1])
    with pytest.raises(DataError, match="the labels of train differ from the manifest's hash"):
        call_command("inspect", store, "--verify")
    images = store / "val/images.npy"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    np.save(store / "train/labels.npy", labels)
    with pytest.raises(DataError, match="images 0 to 1 of val differ from the manifest's hash"):
        call_command("inspect", store, "--verify")
