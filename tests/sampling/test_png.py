"""The encoder of many small PNGs: every reader gets the pixels back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from hamgan.data import open_source
from hamgan.sampling.png import encode_png


def test_readers_get_photographs_back() -> None:
    for image in open_source("photos", "val", 128).read(np.arange(0, 96, 8)):
        file = encode_png(image)
        assert (_read(file) == image).all()
        decoded = decode_png(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
        assert (decoded.permute(1, 2, 0).numpy() == image).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (5, 1, 3), (31, 33, 3), (256, 256, 3)])
def test_noise_and_odd_sizes_come_back(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert (_read(encode_png(image)) == image).all()
    column = image[:, ::-1]  # not contiguous
    assert (_read(encode_png(column)) == column).all()


def test_files_are_about_as_small_as_pillows() -> None:
    images = open_source("photos", "val", 128).read(np.arange(0, 96, 8))
    ours, pillows = sum(len(encode_png(image)) for image in images), 0
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        pillows += buffer.tell()
    assert ours < 1.15 * pillows


def _read(file: bytes) -> np.ndarray:
    Image.open(io.BytesIO(file)).verify()  # the checksums
    image = Image.open(io.BytesIO(file))
    assert image.mode == "RGB"
    return np.asarray(image)
