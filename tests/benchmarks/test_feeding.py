"""Test ``python -m benchmarks data`` on a small store and a few JPEGs."""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import data
from benchmarks.command import main
from benchmarks.data import make_decoders, make_loading, mean_difference, sample_jpegs, write_store
from hamgan.data import open_source
from hamgan.data.preparation.inspection import check_hashes
from hamgan.errors import ConfigError


def test_the_jpegs_are_of_imagenets_size_and_differ() -> None:
    jpegs = sample_jpegs(8)
    assert {Image.open(io.BytesIO(one)).size for one in jpegs} == {(500, 375)}
    assert len(set(jpegs)) == 8
    assert sample_jpegs(8) == jpegs


def test_every_decoder_makes_the_picture(tmp_path: Path) -> None:
    jpegs = sample_jpegs(3)
    found = make_decoders(64)
    reference = found["PIL + torchvision, Lanczos"]
    for name, decoder in found.items():
        image = decoder(jpegs[0])
        assert image.shape == (64, 64, 3), name
        assert image.dtype == np.uint8, name
        assert mean_difference(decoder, reference, jpegs) < 8, name
    assert mean_difference(found["hamgan, Lanczos"], reference, jpegs) < 0.05


def test_a_store_to_measure_is_a_real_one(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", 600)
    check_hashes(store)
    source = open_source(str(store), "train", 128)
    assert len({image.tobytes() for image in source.read(np.arange(600))}) == 600
    make_loading(source, 512)()


def test_the_report_has_rates_ratios_and_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    main(["data", "--images", "1000", "--jpegs", "2", "--rounds", "1", "--json", str(tmp_path / "data.json")])
    torch.set_num_threads(before)
    text = capsys.readouterr().out
    assert "| BatchLoader, whole, 1,000 images" in text
    assert "times the images/s of PIL + torchvision" in text
    assert "An image from 1,000 costs" in text
    figures = json.loads((tmp_path / "data.json").read_text())["figures"]
    assert figures["grey_levels_apart"]["hamgan, Lanczos"] < 0.05
    assert set(figures["decoding"]["seconds"]) == {*data.PLAIN.values(), *data.OURS.values()}


def test_sizes_that_cannot_be_measured_get_a_sentence(tmp_path: Path) -> None:
    for options, message in (
        ({"images": 10, "folder": None}, "--images is 10; the loader needs 1,000 or more"),
        ({"images": 1000, "folder": tmp_path / "none"}, "none is not a folder"),
        ({"images": 10**12, "folder": tmp_path}, "has no room for"),
    ):
        with pytest.raises(ConfigError, match=message):
            data.run(argparse.Namespace(rounds=1, jpegs=1, **options))
