"""Test the page's server in real processes, without a browser: pictures, refusals, and what must not be reachable."""

import base64
import http.client
import io
import itertools
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio.route_utils import delete_files_created_by_app
from PIL import Image, ImageSequence
from support.paths import ROOT
from support.served_app import Page, Served, served
from support.small_runs import python, run_small

from hamgan.app.requests import MOST_IMAGES, check_size, plan_classes, plan_walk
from hamgan.app.server import check_address, launch, serve
from hamgan.errors import ConfigError
from hamgan.sampling import LoadedGenerator
from hamgan.sampling.classes import numbers_in
from hamgan.sampling.sheets import draw_sheet

SAMPLES: tuple[Any, ...] = (["cat"], "0", 2, 1, 1)
BLEND: tuple[Any, ...] = ("cat", "coffee", 50, "0", 2, 1, 1)
WALK: tuple[Any, ...] = ("cat", 0, 1, 5, 1, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_page_shows_the_images_of_the_classes_and_seeds(app: Served, generator: LoadedGenerator) -> None:
    answer = app.ask("classes", ["cat", "3"], "4,9", 1, 0.5, 3)
    assert re.fullmatch(r"4 images in [\d.]+ s", answer.line)
    assert answer.captions == ["cat, seed 4", "cat, seed 9", "coffee, seed 4", "coffee, seed 9"]
    expected = generator([4, 9, 4, 9], ["cat", "cat", "coffee", "coffee"], truncation=0.5)
    for path, image in zip(answer.pictures, expected, strict=True):
        np.testing.assert_array_equal(pixels(app.get(path)), np.asarray(image))
    (sheet,) = answer.downloads
    assert sheet.endswith("/hamgan-draw.png")
    rows = [generator([4, 9], [name], truncation=0.5, output="tensor") for name in ("cat", "coffee")]
    np.testing.assert_array_equal(
        pixels(app.get(sheet)), np.asarray(draw_sheet(rows, ["cat", "coffee"], columns=["seed 4", "seed 9"], scale=3))
    )


def as_address(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def test_a_picture_is_found_and_what_is_none_is_a_sentence(app: Served, generator: LoadedGenerator) -> None:
    (own,) = generator([3], ["cat"])
    answer = app.ask("find", as_address(own.resize((64, 64))))
    assert re.match(r"[a-z]+, in [\d.]+ s", answer.line)
    assert [caption.partition(",")[0] for caption in answer.captions] == [
        "the picture",
        "the nearest image",
        "the nearest of 32 seeds",
    ]
    target, found, _ = (pixels(app.get(path)).astype(float) for path in answer.pictures)
    assert np.abs(target - np.asarray(own)).mean() < 3
    assert np.abs(found - target).mean() < 8
    for text, message in (
        ("", "choose a picture first"),
        (f"{app.url}/static/logo.svg", "not a picture that the page has read"),
        ("/etc/passwd", "not a picture that the page has read"),
        ("data:image/png;base64,AAAA", "the picture "),
        ("data:image/png;base64,&", "the picture is damaged"),
        ("data:image/png;base64," + "A" * 400_001, "not a picture that the page has read"),
    ):
        refused = app.ask("find", text).refused
        assert refused is not None
        assert message in refused


def test_two_classes_of_one_name_can_be_told_apart_and_numbers_are_not_choices(generator: LoadedGenerator) -> None:
    names = ["crane", "2", "crane", *(f"c{index}" for index in range(9))]
    alike = LoadedGenerator(generator.network, generator.config, class_names=names)
    assert alike.titles[:4] == ["crane (index 0)", "2", "crane (index 2)", "c0"]
    plan = plan_classes(alike, ["#2", "#1", "2"], "0", 1, 1)
    assert plan.titles == ["crane (index 2)", "2"]  # the text 2 is the class of that name, which is chosen already


def test_one_seed_starts_a_series(generator: LoadedGenerator) -> None:
    plan = plan_classes(generator, ["0-1"], "7", 3, 1)
    assert [[image.seed for image in row] for row in plan.rows] == [[7, 8, 9], [7, 8, 9]]


def test_a_blend_goes_from_one_class_to_the_other(app: Served, generator: LoadedGenerator) -> None:
    answer = app.ask("blend", "cat", "coffee", 25, "5", 1, 1, 1)
    assert answer.captions == ["cat, seed 5", "75 % cat, 25 % coffee, seed 5", "coffee, seed 5"]
    first, between, second = (pixels(app.get(path)) for path in answer.pictures)
    for image, name in ((first, "cat"), (second, "coffee")):
        np.testing.assert_array_equal(image, np.asarray(generator([5], [name])[0]))
        assert (between != image).any()
    alike = app.ask("blend", "cat", "cat", 25, "5", 1, 1, 1)
    assert len({pixels(app.get(path)).tobytes() for path in alike.pictures}) == 1
    ends = [pixels(app.get(app.ask("blend", "cat", "coffee", end, "5", 1, 1, 1).pictures[1])) for end in (0, 100)]
    np.testing.assert_array_equal(ends, [first, second])


def test_a_walk_is_a_strip_and_a_film_there_and_back(app: Served, generator: LoadedGenerator) -> None:
    answer = app.ask("walk", "cat", 3, 8, 5, 1, 2)
    (film, *strip), (download, sheet) = answer.pictures, answer.downloads
    assert answer.captions[0] == "cat, film there and back"
    assert answer.captions[1:] == ["cat, seed 3", "cat, 25 %", "cat, 50 %", "cat, 75 %", "cat, seed 8"]
    for path, seed in ((strip[0], 3), (strip[-1], 8)):
        np.testing.assert_array_equal(pixels(app.get(path)), np.asarray(generator([seed], ["cat"])[0]))
    assert len({app.get(path) for path in strip}) == 5
    with Image.open(io.BytesIO(app.get(film))) as gif:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
        assert (gif.size, gif.info["duration"], gif.info["loop"], len(frames)) == ((64, 64), 50, 0, 8)
    for frame, still in zip(frames, [*strip, *strip[3:0:-1]], strict=True):  # a palette of 256 colours
        assert np.abs(frame[::2, ::2].astype(float) - pixels(app.get(still))).mean() < 4
    assert app.get(download) == app.get(film)
    assert pixels(app.get(sheet)).shape[0] == 18 + 64


@pytest.mark.parametrize(
    ("tab", "values", "message"),
    [
        ("classes", (["kat"], "0", 2, 1, 1), "no class is called 'kat'; nearest: cat"),
        ("classes", (["12"], "0", 2, 1, 1), "class 12 is out of range; there are classes 0 to 11"),
        ("classes", (["5-2"], "0", 2, 1, 1), "class range '5-2' runs backwards; write 2-5"),
        ("classes", ([], "0", 2, 1, 1), "no class is chosen"),
        ("classes", (None, "0", 2, 1, 1), "no class is chosen"),
        ("classes", (["0-11"] * 6, "0", 1, 1, 1), f"more than {MOST_IMAGES} classes"),
        ("classes", (["0-9999999"], "0", 1, 1, 1), "class 12 is out of range"),
        ("classes", (["c" * 10_000], "0", 2, 1, 1), "class: 10,000 characters are too many; at most 200"),
        ("classes", (["cat"], "9-1", 2, 1, 1), "seed range '9-1' runs backwards; write 1-9"),
        ("classes", (["cat"], "many", 2, 1, 1), "seed range 'many': give numbers and ranges"),
        ("classes", (["cat"], None, 2, 1, 1), "no seeds are given"),
        ("classes", (["cat"], "0-9999999", 2, 1, 1), "names more than 64 seeds"),
        ("classes", (["cat"], "9" * 19, 2, 1, 1), "give numbers and ranges"),
        ("walk", ("cat", 2**53, 1, 5, 1, 1), "Value 9007199254740992 is greater than maximum value 9007199254740991"),
        ("classes", (["cat"], "0", 17, 1, 1), "Value 17 is greater than maximum value 16"),
        ("classes", (["0-3"], "0-19", 2, 1, 1), "4 x 20 are 80 images; at most 64 at once"),
        ("classes", (["cat"], "0", 2, 0, 1), "Value 0 is less than minimum value 0.1"),
        ("classes", (["cat"], "0", 2, float("nan"), 1), "truncation is nan; it must be above 0"),
        ("classes", (["cat"], "0", 2, "much", 1), "None"),
        ("classes", (["cat"], "0", 2, 1, 9), "Value 9 is greater than maximum value 8"),
        ("classes", (["cat"], "0", 2, 1, 10**400), "Value 10+ is greater than maximum value 8"),
        ("blend", ("cat", "coffee", 101, "0", 2, 1, 1), "Value 101 is greater than maximum value 100"),
        ("blend", ("cat", "0-3", 50, "0", 2, 1, 1), "'0-3' names 4 classes; choose one"),
        ("blend", ("cat", "coffee", 50, "0-31", 2, 1, 1), "3 x 32 are 96 images"),
        ("walk", ("cat", 0, 1, 61, 1, 1), "Value 61 is greater than maximum value 60"),
        ("walk", ("cat", 0, 1, 1, 1, 1), "Value 1 is less than minimum value 2"),
        ("walk", ("cat", -1, 1, 5, 1, 1), "Value -1 is less than minimum value 0"),
        ("walk", ("cat", 0, None, 5, 1, 1), "seed None: give whole numbers from 0"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(app: Served, tab: str, values: tuple[Any, ...], message: str) -> None:
    assert re.search(message, unescape(app.ask(tab, *values).refused or "nothing is refused"))


def test_films_and_sheets_are_limited_in_pixels(generator: LoadedGenerator) -> None:
    plan = plan_classes(generator, ["cat"], "0-63", 1, 1)
    check_size(plan, 64, 512)
    with pytest.raises(ConfigError, match=r"64 images of 1024 x 1024 pixels are too many .*: take at most 16"):
        check_size(plan, 64, 1024)
    with pytest.raises(ConfigError, match="118 images of 512 x 512 pixels are too many"):
        check_size(plan_walk(generator, "cat", 0, 1, 60, 1), 118, 512)


def test_a_range_is_not_counted_to_its_end() -> None:
    assert list(itertools.islice(numbers_in("2,5-9999999,x", "seed range"), 3)) == [2, 5, 6]


def test_what_a_visitor_sends_is_text_in_the_sentence(app: Served) -> None:
    sentence = app.ask("classes", ["<b>kat</b>"], "0", 2, 1, 1).refused
    assert sentence
    assert sentence.startswith("no class is called &#x27;&lt;b&gt;kat&lt;/b&gt;&#x27;; ")


def status_of(app: Served, method: str, path: str, body: Any = None, chunked: bool = False) -> tuple[int, bytes]:
    """Return the status and body of the answer to a request whose path no client normalises."""
    connection = http.client.HTTPConnection(app.url.removeprefix("http://"), timeout=60)
    try:
        headers = {"content-type": "application/json"} if body else {}
        connection.request(method, path, body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


FILES = [
    "/gradio_api/file=PATH",
    "/gradio_api/file/PATH",
    "/gradio_api/file=%2e%2e/%2e%2e/PATH",
    "/file=PATH",
    "/gradio_api/proxy=http://127.0.0.1/",
    "/gradio_api/stream/x/y/z/playlist.m3u8",
    "/static/../../../../../../../../../../..PATH",
    "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2ePATH",
    "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..PATH",
    "/assets/PATH",
    "/static/PATH",
    "/svelte/PATH",
    "/gradio_api/file=http://127.0.0.1/PATH",
]


@pytest.mark.parametrize("route", FILES)
def test_no_file_on_disk_can_be_reached(app: Served, run: Path, route: str) -> None:
    for file in (Path("/etc/passwd"), run / "generator.safetensors", run / "config.yaml"):
        status, body = status_of(app, "GET", route.replace("PATH", str(file)))
        assert status in (403, 404), (status, body[:200])
        assert file.read_bytes()[:100] not in body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/answer"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/file=http://example.org/a.png"),
        ("GET", "/config"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/gradio_api/openapi.json"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(app: Served, method: str, path: str) -> None:
    assert status_of(app, method, path)[0] == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_large_requests_are_refused(app: Served, chunked: bool) -> None:
    parts = (b"x" * 1000 for _ in range(525))
    body: Any = parts if chunked else b"".join(parts)
    status, text = status_of(app, "POST", "/gradio_api/queue/join", body, chunked)
    assert (status, text) == (413, b"A request has 524288 bytes at most.")


def test_many_visitors_at_once_are_served_or_told_to_wait(app: Served) -> None:
    bodies = [app.body("classes", ["0-11"], "0-4", 1, 1, 1, visitor=f"visitor{number}") for number in range(60)]
    with ThreadPoolExecutor(60) as visitors:
        answers = list(visitors.map(app.send, bodies, (f"visitor{number}" for number in range(60))))
    drawn = [answer for answer in answers if answer.line.startswith("60 images in")]
    refused = [answer for answer in answers if "Queue is full" in (answer.refused or "")]
    assert len(drawn) + len(refused) == 60
    assert len(drawn) >= 16
    assert refused
    assert app.ask("classes", *SAMPLES).line.startswith("2 images in")


def test_visitors_who_come_and_go_leave_no_memory_behind(app: Served) -> None:
    def resident() -> int:
        """Return the resident memory of the page's process in megabytes."""
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{app.process.pid}/status").read_text())[0]) // 1024

    body = app.body("classes", ["kat"], "0", 2, 1, 1)

    def come(visitors: range) -> None:
        for visitor in visitors:
            assert app.send(body.replace(b'"test"', f'"visitor{visitor}"'.encode()), f"visitor{visitor}").refused

    come(range(150))
    before = resident()
    come(range(150, 500))
    assert resident() - before < 14


class Watched(LoadedGenerator):
    """Draw slowly, and count how many draw at the same time."""

    inside = most = 0

    def images(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.2)
        self.inside -= 1
        return super().images(z, labels)


def test_one_visitor_is_drawn_for_at_a_time_and_files_are_forgotten(generator: LoadedGenerator, tmp_path: Path) -> None:
    watched = Watched(generator.network, generator.config, class_names=generator.class_names)
    page = launch(watched, "127.0.0.1", check_address("127.0.0.1", 0), tmp_path)
    try:
        visitor = Page(str(page.local_url).rstrip("/"))
        wishes = [("classes", SAMPLES), ("blend", BLEND), ("walk", WALK)]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda wish: visitor.ask(wish[0], *wish[1], visitor=wish[0]), wishes))
        assert [answer.refused for answer in answers] == [None] * 3
        assert watched.most == 1
        assert [path for path in tmp_path.rglob("*") if path.is_file()]
        delete_files_created_by_app(page, 0)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        page.close()


def test_nothing_is_left_on_disk_and_nobody_else_is_asked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with served(run, tmp_path) as app:
        app.ask("walk", *WALK)
        app.ask("blend", *BLEND)
        assert b"fonts.googleapis" not in app.get("/")
    # torch 2.8 keeps a module of its own there, which it removes only where a process ends by itself.
    left = [path for path in temporary.rglob("*") if path.is_file() and not path.match("_remote_module_*.py")]
    assert left == []
    asked = [line for line in app.log.read_text().splitlines() if line.startswith("ASKED")]
    assert [line for line in asked if "127.0.0.1" not in line] == []
    assert asked  # the look-up of the address to listen on: the hook is there


def test_the_options_stay() -> None:
    done = python(ROOT / "scripts/demo_app.py", "--help")
    assert set(re.findall(r"--[a-z-]+", done.stdout)) == {"--help", "--checkpoint", "--port", "--host"}


TAKEN = "error: cannot listen on 127.0.0.1, port {}: Address already in use; choose another --port or --host\n"


def test_a_missing_checkpoint_and_a_taken_port_are_sentences(app: Served, run: Path, tmp_path: Path) -> None:
    script, port = ROOT / "scripts/demo_app.py", app.url.rpartition(":")[2]
    done = python(script, "--checkpoint", tmp_path / "none", "--port", "0")
    assert (done.returncode, done.stderr) == (1, f"error: there is no checkpoint at {tmp_path / 'none'}\n")
    done = python(script, "--checkpoint", run, "--port", port)
    assert (done.returncode, done.stderr) == (2, TAKEN.format(port))


def test_addresses_that_cannot_be_had_are_sentences(run: Path) -> None:
    for host, port, message in (
        ("127.0.0.1", 70_000, "cannot listen on 127.0.0.1, port 70000: .*0-65535.; choose another --port or --host"),
        ("no.such.host.invalid", 0, "cannot listen on no.such.host.invalid, port 0: "),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1, port 0: Cannot assign requested address"),
    ):
        with pytest.raises(ConfigError, match=message):
            serve(str(run), host, port)


def test_without_gradio_a_sentence_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"the page needs Gradio: pip install -r requirements-sharing\.txt"):
        serve(str(run))
