"""Test the page of a segmenter in a real process: a picture, its classes, and what is no picture."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image
from selenium.webdriver.support.ui import WebDriverWait
from support.browser import open_chromium
from support.segmenters import miniature_config, recorded_weights
from support.served_app import Served, served

from hamgan.segmentation import LoadedSegmenter, SegmenterHeader, build_segmenter, load_segmenter, save_segmenter

NAMES = [f"<b> {name}" for name in ("wall", "sky", "floor", "tree", "rug", "bed", "road")]
PALETTE = [[30 * index, 255 - 30 * index, 128] for index in range(7)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, config = tmp_path_factory.mktemp("run"), miniature_config()
    segmenter = build_segmenter(config)
    segmenter.encoder.load_state_dict(recorded_weights("van"))
    evaluation = {"protocol": "3 images of mosaic/test", "miou": 0.421}
    header = SegmenterHeader(config, NAMES, PALETTE, 2, [evaluation])
    save_segmenter(folder / "segmenter.safetensors", segmenter, header)
    return folder


@pytest.fixture(scope="module")
def app(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(run, tmp_path_factory.mktemp("app")) as page:
        yield page


@pytest.fixture(scope="module")
def segmenter(run: Path) -> LoadedSegmenter:
    return load_segmenter(run, "cpu")


def as_address(image: Image.Image, kind: str = "PNG") -> str:
    content = io.BytesIO()
    image.save(content, kind)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def picture() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((96, 72))


def test_a_picture_gets_its_classes(app: Served, segmenter: LoadedSegmenter) -> None:
    answer = app.ask("label", as_address(picture()), False)
    (expected,) = segmenter(picture())
    assert answer.captions == ["classes over the picture", "classes", "picture"]
    labels = Image.open(io.BytesIO(app.get(answer.downloads[0])))
    assert labels.mode == "P"
    assert np.array_equal(np.asarray(labels), expected.labels)
    shown = np.asarray(Image.open(io.BytesIO(app.get(answer.pictures[1]))).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(PALETTE)[expected.labels]).mean() < 8  # Gradio may show it as WebP
    name, share = next(iter(expected.shares().items()))
    red, green, blue = PALETTE[NAMES.index(name)]
    swatch = f'<span style="color: rgb({red}, {green}, {blue})">&#9632;</span>'
    named = f"{name.replace('<', '&lt;').replace('>', '&gt;')} {100 * share:.0f} %"
    assert answer.line.startswith(f"{swatch} {named}")


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_are_large_and_stand_behind_the_controls_until_there_are_some(
    app: Served, tmp_path: Path, width: int
) -> None:
    picture().save(tmp_path / "astronaut.png")
    browser = open_chromium(tmp_path, width)
    try:
        browser.get(app.url)

        def find(selector: str) -> list[Any]:
            return [element for element in browser.find_elements("css selector", selector) if element.is_displayed()]

        waiting = WebDriverWait(browser, 60)
        (button,) = waiting.until(lambda _: find("button.primary"))
        assert not find(".results .block:not(.status)")
        assert button.rect["y"] < 400
        browser.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "astronaut.png"))
        button.click()
        pictures = waiting.until(lambda _: len(found := find(".pictures .gallery-item img")) == 3 and found)
        assert all(image.rect["width"] > 200 for image in pictures)
        place, controls = pictures[0].rect, button.rect
        if width == 390:
            assert place["y"] + place["height"] < controls["y"]
        else:
            assert place["x"] > controls["x"] + controls["width"]
        assert find(".status span")[0].value_of_css_property("color").startswith("rgb")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.quit()


def test_several_scales_are_those_of_published_numbers(app: Served, segmenter: LoadedSegmenter) -> None:
    answer = app.ask("label", as_address(picture()), True)
    (expected,) = segmenter(picture(), scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(app.get(answer.downloads[0])))), expected.labels)


def test_the_page_says_what_is_loaded(app: Served) -> None:
    text = app.get("/").decode()
    for fact in ("7 classes", "72,479 parameters", "2 thousand images seen", "mIoU 42.1", "3 images of mosaic/test"):
        assert fact in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "choose a picture first"),
        ("/etc/passwd", "not a picture that the page has read"),
        ("data:image/png;base64,AAAA", "the picture is damaged"),
        (as_address(Image.new("L", (3000, 4))), "3000 x 4 pixels; at most 2048 a side"),
    ],
)
def test_what_is_no_picture_is_a_sentence(app: Served, text: str, message: str) -> None:
    refused = app.ask("label", text, False).refused
    assert refused is not None
    assert message in refused
