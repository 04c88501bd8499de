"""Test the page in a real Chromium: pictures, keys, a phone's width, downloads, no request to other hosts."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from support.browser import chromium, open_chromium
from support.served_app import Served, served
from support.small_runs import run_small

from hamgan.checkpoint import load_generator_file, save_generator
from hamgan.sampling import LoadedGenerator

Found = TypeVar("Found")

NAME = "</title></script><script>hacked = 1</script>{{7*7}} ${7*7}"
MARKUP = '<img src=x onerror="hacked = 2">{{name}} ${1+1}'
EVALUATION = {"fid": 12.5, "protocol": "50,000 samples against <b>val</b>"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chromium()
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def _browser(downloads: Path) -> Iterator[Chrome]:
    driver = open_chromium(downloads)
    yield driver
    driver.quit()


@pytest.fixture
def browser(_browser: Chrome) -> Chrome:
    """Return the browser of all tests with an empty page, and nothing kept or logged of the pages before it."""
    _browser.get("about:blank")
    _browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
    for log in ("browser", "performance"):
        _browser.get_log(log)
    return _browser


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Chrome]:
    driver = open_chromium(tmp_path, width=360)
    yield driver
    driver.quit()


def wait(browser: Chrome, look: Callable[[], Found]) -> Found:
    """Return the result of ``look`` as soon as it is true."""
    ignored = [WebDriverException, IndexError]
    found: Found = WebDriverWait(browser, 40, 0.1, ignored).until(lambda _: look(), browser.page_source[-2000:])
    return found


def seen(browser: Chrome, selector: str) -> list[WebElement]:
    return [element for element in browser.find_elements("css selector", selector) if element.is_displayed()]


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def opened(browser: Chrome, app: Served) -> None:
    """Open the page and wait for the pictures that it begins with."""
    browser.get(app.url)
    wait(browser, lambda: len(captions(browser)) == 24)


def captions(browser: Chrome) -> list[str]:
    """Return the visible captions of the pictures, or none while screen readers get other ones."""
    found = seen(browser, ".pictures .gallery-item button")
    names = [picture.text for picture in found]
    return names if names == [picture.accessible_name for picture in found] else []


def pictures(browser: Chrome, app: Served) -> list[np.ndarray]:
    """Return the pixels of the pictures that the browser shows."""
    images = seen(browser, ".pictures .gallery-item img")
    wait(browser, lambda: all(image.get_property("naturalWidth") == 32 for image in images))
    paths = [str(image.get_attribute("src")).removeprefix(app.url) for image in images]
    return [np.asarray(Image.open(io.BytesIO(app.get(path)))) for path in paths]


def replace_text(browser: Chrome, text: str) -> None:
    """Replace the text of the field that has the focus, and press Enter."""
    keys = ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
    keys.send_keys(text, Keys.ENTER).perform()


def enter(browser: Chrome, label: str, text: str) -> None:
    """Replace the text of the field with this label, and press Enter."""
    field = next(field for field in seen(browser, ".controls input") if field.accessible_name.startswith(label))
    browser.execute_script("arguments[0].focus()", field)
    replace_text(browser, text)


def test_a_class_and_a_seed_make_a_picture(browser: Chrome, app: Served, generator: LoadedGenerator) -> None:
    opened(browser, app)
    text = browser.find_element("tag name", "header").text
    assert re.search("32 × 32 pixels · 12 classes · 0.008 thousand images seen", text)
    seen(browser, "[title=Clear]")[0].click()
    seen(browser, "[role=combobox]")[0].click()
    wait(browser, lambda: [choice for choice in seen(browser, "[role=option]") if "coffee" in choice.text])[0].click()
    enter(browser, "Seeds", "3,4")
    wait(browser, lambda: captions(browser) == ["coffee, seed 3", "coffee, seed 4"])
    first = pictures(browser, app)
    np.testing.assert_array_equal(first, [np.asarray(image) for image in generator([3, 4], ["coffee"])])
    enter(browser, "Seeds", "5,6")
    wait(browser, lambda: captions(browser) == ["coffee, seed 5", "coffee, seed 6"])
    assert (pictures(browser, app)[0] != first[0]).any()
    enter(browser, "Seeds", "3,4")
    wait(browser, lambda: captions(browser) == ["coffee, seed 3", "coffee, seed 4"])
    np.testing.assert_array_equal(pictures(browser, app), first)
    next(button for button in seen(browser, "button") if button.text == "Other seeds").click()
    wait(browser, lambda: len(captions(browser)) == 8 and captions(browser)[0] != "coffee, seed 3")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def tab_to(browser: Chrome, name: str) -> list[str]:
    """Press Tab until the element of this name has the focus; return the names of all that had it on the way."""
    on_the_way: list[str] = []
    while not on_the_way or not on_the_way[-1].startswith(name):
        assert len(on_the_way) < 40, on_the_way
        press(browser, Keys.TAB)
        on_the_way.append(browser.switch_to.active_element.accessible_name)
    return on_the_way


def test_everything_can_be_done_with_keys(browser: Chrome, app: Served) -> None:
    opened(browser, app)
    assert tab_to(browser, "Walk") == ["Classes", "Blend", "Walk"]
    tab_to(browser, "Classes")
    press(browser, "coffee", Keys.ENTER)
    tab_to(browser, "Seeds")
    replace_text(browser, "5")
    wait(browser, lambda: "coffee, seed 5" in captions(browser))
    assert len(captions(browser)) == 32
    assert tab_to(browser, "number input for Images") == ["number input for Images per class"]
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys("2").perform()
    way = tab_to(browser, "Draw")
    for name in ("range slider for Images per class", "number input for Truncation", "number input for Enlargement"):
        assert name in way
    press(browser, Keys.ENTER)
    wait(browser, lambda: len(captions(browser)) == 8)
    assert tab_to(browser, "astronaut, seed 5") == ["Other seeds", "astronaut, seed 5"]
    link = seen(browser, "a[download]")[0]
    assert link.get_attribute("download") == "hamgan-draw.png"
    tab_to(browser, link.accessible_name)
    browser.find_element("tag name", "h1").click()  # back to the top
    tab_to(browser, "Walk")
    press(browser, Keys.ENTER)
    tab_to(browser, "Second seed")
    replace_text(browser, "9")
    wait(browser, lambda: captions(browser)[-1] == "astronaut, seed 9")
    assert seen(browser, ".status")[-1].get_attribute("aria-live") == "polite"


def test_what_is_wrong_is_said_and_the_pictures_stay(browser: Chrome, app: Served) -> None:
    opened(browser, app)
    combobox = seen(browser, "[role=combobox]")[0]
    combobox.send_keys("kat", Keys.ENTER)
    enter(browser, "Seeds", "1")
    message = wait(browser, lambda: seen(browser, ".toast-body"))[0]
    assert message.get_attribute("aria-live") == "polite"
    wait(browser, lambda: "no class is called 'kat'; nearest: cat, rocket" in message.text)
    assert len(captions(browser)) == 24
    next(button for button in seen(browser, "[title]") if button.get_attribute("title") == "Remove kat").click()
    enter(browser, "Seeds", "9-1")
    wait(browser, lambda: [text for text in seen(browser, ".toast-body") if "backwards; write 1-9" in text.text])
    assert len(captions(browser)) == 24


def test_blends_and_walks_are_drawn_and_saved(browser: Chrome, app: Served, downloads: Path) -> None:
    opened(browser, app)
    seen(browser, "[role=tab]")[1].click()
    slider = wait(
        browser, lambda: [field for field in seen(browser, "[type=range]") if "Percent" in field.accessible_name]
    )
    slider[0].send_keys(Keys.ARROW_RIGHT)
    next(button for button in seen(browser, "button.primary") if button.text == "Blend").click()
    names = ["astronaut, seed 0", "45 % astronaut, 55 % brick, seed 0", "brick, seed 0"]
    wait(browser, lambda: captions(browser)[::8] == names)
    seen(browser, "[role=tab]")[2].click()
    wait(browser, lambda: [button for button in seen(browser, "button.primary") if button.text == "Walk"])[0].click()
    for link in wait(browser, lambda: seen(browser, "a[download]")):
        link.click()
    for name, size in (("hamgan-walk.gif", (96, 96)), ("hamgan-walk.png", None)):
        wait(browser, (downloads / name).is_file)
        with Image.open(downloads / name) as image:
            assert size in (None, image.size)
            assert getattr(image, "n_frames", 1) == (46 if size else 1)


def test_tabs_open_with_pictures_which_follow_a_slider(browser: Chrome, app: Served) -> None:
    opened(browser, app)
    for number, count in ((1, 24), (2, 8)):
        seen(browser, "[role=tab]")[number].click()
        wait(browser, lambda count=count: len(captions(browser)) == count)  # type: ignore[misc]
    name = "range slider for Images on the way"
    slider = next(field for field in seen(browser, "[type=range]") if field.accessible_name == name)
    slider.send_keys(Keys.ARROW_LEFT)
    wait(browser, lambda: seen(browser, ".status")[0].text.startswith("23 images"))


def test_an_address_brings_back_what_was_seen(browser: Chrome, app: Served) -> None:
    opened(browser, app)
    enter(browser, "Seeds", "41")
    wait(browser, lambda: "cat, seed 41" in captions(browser))
    classes = browser.current_url
    seen(browser, "[role=tab]")[2].click()
    wait(browser, lambda: len(captions(browser)) == 8)
    enter(browser, "Second seed", "77")
    wait(browser, lambda: captions(browser)[-1] == "astronaut, seed 77")
    walk = browser.current_url
    for address, last in ((classes, "cat, seed 48"), (walk, "astronaut, seed 77")):
        browser.get("about:blank")
        browser.get(address)
        wait(browser, lambda last=last: captions(browser)[-1:] == [last])  # type: ignore[misc]
    browser.get("about:blank")
    browser.get(app.url + "/#%5B%22Draw")  # cut on its way
    wait(browser, lambda: captions(browser)[-1:] == ["cat, seed 7"])


def test_a_picture_of_the_visitors_own_is_found(browser: Chrome, app: Served, tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "red.png")
    opened(browser, app)
    seen(browser, "[role=tab]")[3].click()
    browser.find_element("css selector", "#picture input").send_keys(str(tmp_path / "red.png"))
    wait(browser, lambda: seen(browser, "button.primary")[0].text == "Find")
    seen(browser, "button.primary")[0].click()
    wait(browser, lambda: captions(browser)[:1] == ["the picture"])
    assert np.abs(pictures(browser, app)[0].astype(int) - (254, 0, 0)).max() < 5


def results_are_in_sight(phone: Chrome) -> bool:
    """Tell whether the page went back to the pictures above the controls, as far as its end allows."""
    (results,) = seen(phone, ".results")
    top: float = phone.execute_script("return arguments[0].getBoundingClientRect().top", results)
    return -2 < top < 200


def test_a_phone_shows_everything_without_scrolling_sideways(phone: Chrome, app: Served) -> None:
    opened(phone, app)
    for number, button in enumerate(("Draw", "Blend", "Walk")):
        seen(phone, "[role=tab]")[number].click()
        wait(phone, lambda name=button: seen(phone, "button.primary")[0].text == name)  # type: ignore[misc]
        wait(phone, lambda: captions(phone))
        # A tap of the driver may arrive after the page has moved, and meet something else.
        phone.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", seen(phone, "button.primary")[0])
        wait(phone, lambda: captions(phone))
        widths = "return [document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]"
        assert phone.execute_script(widths) == [360, 360, 360]
        wait(phone, lambda: results_are_in_sight(phone))
        phone.execute_script("window.scrollTo(0, 0)")


def test_nobody_else_is_asked_and_the_page_draws_once_as_it_opens(browser: Chrome, app: Served) -> None:
    opened(browser, app)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"] for event in messages if event["method"] == "Network.requestWillBeSent"]
    urls = [request["request"]["url"] for request in asked if not request["documentURL"].startswith("chrome")]
    assert sum(url.startswith(f"{app.url}/gradio_api/queue/join") for url in urls) == 1
    assert [url for url in urls if not url.startswith((f"{app.url}/", "data:", "blob:"))] == []


def test_names_are_text_and_the_evaluation_is_shown(run: Path, browser: Chrome, tmp_path: Path) -> None:
    network, config, header = load_generator_file(run / "generator.safetensors")
    names = [MARKUP, *header["class_names"][1:]]
    file = tmp_path / "generator.safetensors"
    extra = {"evaluations": [EVALUATION]}
    save_generator(file, network, replace(config, name=NAME), class_names=names, kimg=5.0, extra=extra)
    with served(file, tmp_path) as app:
        opened(browser, app)
        assert browser.find_element("tag name", "h1").text == NAME
        assert browser.title == f"{NAME} - HamGAN"
        assert captions(browser)[0] == f"{MARKUP}, seed 0"
        seen(browser, "summary")[0].click()
        about = browser.find_element("tag name", "header").text
        assert "Evaluation: FID: 12.5" in about
        assert "Protocol: 50,000 samples against <b>val</b>" in about
        assert browser.execute_script("return typeof hacked") == "undefined"
