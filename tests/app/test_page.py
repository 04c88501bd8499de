"""The page's server: what it draws, what it refuses, what cannot be reached through it; real processes, no browser."""

import http.client
import io
import itertools
import re
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from support.paths import ROOT
from support.served_app import Served, served
from support.small_runs import python, run_small

import hamgan
from hamgan.app.files import MadeFiles
from hamgan.app.requests import MOST_IMAGES, request_blend, request_samples, request_walk
from hamgan.app.server import serve
from hamgan.app.turnstile import Turnstile
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


@pytest.fixture(scope="module")
def generator(run: Path) -> LoadedGenerator:
    return hamgan.load_generator(run, "cpu")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's process puts what it puts on disk."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def app(run: Path, temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with served(run, tmp_path_factory.mktemp("app")) as page:
            yield page


def made(html: str, kind: str = "img src") -> list[str]:
    """Paths of the pictures (``img src``) or of the downloads (``a href``) in a piece of the page."""
    return [f"/{path}" for path in re.findall(rf'<{kind}="(made/[\w.-]+)"', html)]


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_page_shows_the_images_of_the_classes_and_seeds(app: Served, generator: LoadedGenerator) -> None:
    status, html = app.ask("classes", ["cat", "3"], "4,9", 1, 0.5, 3)
    assert re.fullmatch(r"<p>4 images in [\d.]+ s</p>", status)
    assert re.findall('alt="(.*?)"', html) == ["cat, seed 4", "cat, seed 9", "coffee, seed 4", "coffee, seed 9"]
    expected = generator([4, 9, 4, 9], ["cat", "cat", "coffee", "coffee"], truncation=0.5)
    for path, image in zip(made(html), expected, strict=True):
        np.testing.assert_array_equal(pixels(app.get(path)), np.asarray(image))
    (sheet,) = made(html, "a href")
    rows = [generator([4, 9], [name], truncation=0.5, output="tensor") for name in ("cat", "coffee")]
    np.testing.assert_array_equal(pixels(app.get(sheet)), np.asarray(draw_sheet(rows, ["cat", "coffee"], scale=3)))


def test_one_seed_starts_a_series(generator: LoadedGenerator) -> None:
    plan = request_samples(generator, ["0-1"], "7", 3, 1, 1).plan
    assert [[picture.seed for picture in row] for row in plan.rows] == [[7, 8, 9], [7, 8, 9]]


def test_a_blend_goes_from_one_class_to_the_other(app: Served, generator: LoadedGenerator) -> None:
    html = app.ask("blend", "cat", "coffee", 25, "5", 1, 1, 1)[1]
    assert re.findall("<h2>(.*)</h2>", html) == ["cat", "75 % cat, 25 % coffee", "coffee"]
    first, between, second = (pixels(app.get(path)) for path in made(html))
    for image, name in ((first, "cat"), (second, "coffee")):
        np.testing.assert_array_equal(image, np.asarray(generator([5], [name])[0]))
        assert (between != image).any()
    ends = [pixels(app.get(made(app.ask("blend", "cat", "coffee", end, "5", 1, 1, 1)[1])[1])) for end in (0, 100)]
    np.testing.assert_array_equal(ends, [first, second])


def test_a_walk_is_a_strip_and_a_film_there_and_back(app: Served, generator: LoadedGenerator) -> None:
    html = app.ask("walk", "cat", 3, 8, 5, 1, 2)[1]
    strip, (film, sheet) = made(html), made(html, "a href")
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["seed 3", "25 %", "50 %", "75 %", "seed 8"]
    for path, seed in ((strip[0], 3), (strip[-1], 8)):
        np.testing.assert_array_equal(pixels(app.get(path)), np.asarray(generator([seed], ["cat"])[0]))
    assert len({app.get(path) for path in strip}) == 5
    with Image.open(io.BytesIO(app.get(film))) as gif:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
        assert (gif.size, gif.info["duration"], gif.info["loop"], len(frames)) == ((64, 64), 50, 0, 8)
    for frame, still in zip(frames, [*strip, *strip[3:0:-1]], strict=True):  # a palette of 256 colours
        assert np.abs(frame[::2, ::2].astype(float) - pixels(app.get(still))).mean() < 4
    assert f'<img class="film" src="{film[1:]}"' in html
    assert pixels(app.get(sheet)).shape[0] == 64


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
        ("classes", (["cat"], None, 2, 1, 1), "give numbers and ranges"),
        ("classes", (["cat"], "0-9999999", 2, 1, 1), "are more than 64 seeds"),
        ("classes", (["cat"], "9" * 17, 2, 1, 1), "seed 99999999999999999 is too large"),
        ("classes", (["cat"], "0", 65, 1, 1), "images per class is 65; allowed: 1 to 64"),
        ("classes", (["cat"], "0", 2.5, 1, 1), "images per class is 2.5; give a whole number"),
        ("classes", (["0-3"], "0-19", 2, 1, 1), "4 x 20 are 80 images; at most 64 at once"),
        ("classes", (["cat"], "0", 2, 0, 1), "truncation is 0; it must be above 0"),
        ("classes", (["cat"], "0", 2, -1, 1), "truncation is -1; it must be above 0"),
        ("classes", (["cat"], "0", 2, float("nan"), 1), "truncation is nan; it must be above 0"),
        ("classes", (["cat"], "0", 2, "much", 1), "truncation: give a number"),
        ("classes", (["cat"], "0", 2, True, 1), "truncation: give a number"),
        ("classes", (["cat"], "0", 2, 1, 9), "enlargement is 9; allowed: 1 to 8"),
        ("classes", (["cat"], "0", 2, 1, 10**400), "enlargement is 10+; allowed: 1 to 8"),
        ("blend", ("cat", "coffee", 101, "0", 2, 1, 1), "percent is 101; allowed: 0 to 100"),
        ("blend", ("cat", "0-3", 50, "0", 2, 1, 1), "'0-3' are 4 classes; choose one"),
        ("blend", ("cat", "coffee", 50, "0-31", 2, 1, 1), "3 x 32 are 96 images"),
        ("walk", ("cat", 0, 1, 61, 1, 1), "frames is 61; allowed: 2 to 60"),
        ("walk", ("cat", 0, 1, 1, 1, 1), "frames is 1; allowed: 2 to 60"),
        ("walk", ("cat", -1, 1, 5, 1, 1), "first seed is -1; allowed: 0 to"),
        ("walk", ("cat", 0, None, 5, 1, 1), "second seed: give a number"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    generator: LoadedGenerator, tab: str, values: tuple[Any, ...], message: str
) -> None:
    ask = {"classes": request_samples, "blend": request_blend, "walk": request_walk}[tab]
    with pytest.raises(ConfigError, match=message):
        ask(generator, *values)


def test_films_and_sheets_are_limited_in_pixels(run: Path) -> None:
    wide = hamgan.load_generator(run, "cpu")
    wide.config.resolution = 512
    request_samples(wide, ["cat"], "0-63", 1, 1, 1)
    with pytest.raises(
        ConfigError, match="64 images of 1024 x 1024 pixels are too many for one request: take at most 16"
    ):
        request_samples(wide, ["cat"], "0-63", 1, 1, 2)
    with pytest.raises(ConfigError, match="118 images of 512 x 512 pixels are too many"):
        request_walk(wide, "cat", 0, 1, 60, 1, 1)


def test_a_range_is_not_counted_to_its_end() -> None:
    assert list(itertools.islice(numbers_in("2,5-9999999,x", "seed range"), 3)) == [2, 5, 6]


def test_the_sentence_reaches_the_page_and_names_are_text(app: Served) -> None:
    status, html = app.ask("classes", ["<b>kat</b>"], "0", 2, 1, 1)
    assert status.startswith('<p class="wrong">no class is called &#x27;&lt;b&gt;kat&lt;/b&gt;&#x27;; ')
    assert html == ""
    assert "Traceback" not in app.log.read_text()


def status_of(app: Served, method: str, path: str, body: Any = None, chunked: bool = False) -> tuple[int, bytes]:
    """The answer to a request that goes out as it is: no client tidies its path."""
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
    "/made/PATH",
    "/made/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..PATH",
    "/made/none.png",
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
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/call/answer"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/runs"),
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
    parts = (b"x" * 1000 for _ in range(17))
    body: Any = parts if chunked else b"".join(parts)
    status, text = status_of(app, "POST", "/gradio_api/run/predict", body, chunked)
    assert (status, text) == (413, b"A request has 16384 bytes at most.")


def test_the_browser_is_told_to_ask_nobody_else(app: Served) -> None:
    with urllib.request.urlopen(app.url) as answer:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
        assert b"fonts.googleapis" not in answer.read()


def test_many_visitors_at_once_are_served_or_told_to_wait(app: Served, generator: LoadedGenerator) -> None:
    request = app.request("classes", ["0-11"], "0-4", 1, 1, 1)

    def ask(_: int) -> bytes:
        with urllib.request.urlopen(request, timeout=120) as answer:
            body: bytes = answer.read()
        return body

    with ThreadPoolExecutor(60) as visitors:
        answers = list(visitors.map(ask, range(60)))
    served_ = [answer for answer in answers if b"60 images in" in answer]
    refused = [answer for answer in answers if b"too many others are drawing just now" in answer]
    assert len(served_) + len(refused) == 60
    assert len(served_) >= 17
    assert refused
    assert app.ask("classes", *SAMPLES)[0].startswith("<p>2 images in")


def test_visitors_who_come_and_go_leave_no_memory_behind(app: Served) -> None:
    def resident() -> int:
        """Megabytes."""
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{app.process.pid}/status").read_text())[0]) // 1024

    body = app.request("classes", ["kat"], "0", 2, 1, 1).data
    assert isinstance(body, bytes)

    def come(visitors: range) -> None:
        for visitor in visitors:
            session = f'"visitor{visitor}"'.encode()
            status_of(app, "POST", "/gradio_api/run/predict", body.replace(b'"test"', session))

    come(range(150))
    before = resident()
    come(range(150, 900))
    assert resident() - before < 30  # some 64 MB if all were remembered


def test_a_turnstile_lets_one_through_and_few_wait() -> None:
    turnstile, inside, most, go_on = Turnstile(2), [0], [0], threading.Event()

    def pass_through(_: int) -> str:
        try:
            with turnstile.turn():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                go_on.wait(30)
                inside[0] -= 1
        except ConfigError as error:
            go_on.set()  # the line was full
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(pass_through, range(4)))
    assert answers == ["", "", "", "too many others are drawing just now; try again in a moment"]
    assert most == [1]


def test_old_files_are_forgotten() -> None:
    files = MadeFiles(most_bytes=10)
    first, second, third = (files.add(content, "png") for content in (b"1234", b"5678", b"9abc"))
    assert [files.get(name) for name in (first, second, third)] == [None, b"5678", b"9abc"]
    large = files.add(b"x" * 11, "gif")
    assert [files.get(name) for name in (second, third, large)] == [None, None, b"x" * 11]
    assert large.endswith(".gif")


def test_nothing_is_left_on_disk_and_nobody_else_is_asked(app: Served, temporary: Path) -> None:
    app.ask("walk", *WALK)
    app.ask("blend", *BLEND)
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
    asked = [line for line in app.log.read_text().splitlines() if line.startswith("ASKED")]
    assert [line for line in asked if "127.0.0.1" not in line] == []
    assert asked  # the look-up of the address to listen on: the hook is there


def test_the_options_stay() -> None:
    done = python(ROOT / "scripts/demo_app.py", "--help")
    assert set(re.findall(r"--[a-z-]+", done.stdout)) == {"--help", "--checkpoint", "--port", "--host"}


def test_a_missing_checkpoint_and_a_taken_port_are_sentences(app: Served, run: Path, tmp_path: Path) -> None:
    script, port = ROOT / "scripts/demo_app.py", app.url.rpartition(":")[2]
    done = python(script, "--checkpoint", tmp_path / "none", "--port", "0")
    assert (done.returncode, done.stderr) == (1, f"error: there is no checkpoint at {tmp_path / 'none'}\n")
    done = python(script, "--checkpoint", run, "--port", port)
    assert (done.returncode, done.stderr) == (2, f"error: port {port} of 127.0.0.1 is taken; choose another --port\n")


def test_addresses_that_cannot_be_had_are_sentences(run: Path) -> None:
    for host, port, message in (
        ("127.0.0.1", 70_000, r"port is 70000; allowed: 0 \(any free one\) to 65535"),
        ("no.such.host.invalid", 0, "host 'no.such.host.invalid' is no address that is known here"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1, port 0: Cannot assign requested address"),
    ):
        with pytest.raises(ConfigError, match=message):
            serve(str(run), host, port)


def test_without_gradio_a_sentence_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"the page needs Gradio: pip install -r requirements-sharing\.txt"):
        serve(str(run))
