"""Serve ``scripts/demo_app.py`` in a process of its own, which logs every connection and host look-up that it makes."""

import contextlib
import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from support.paths import ROOT
from support.small_runs import start

from hamgan.errors import INTERRUPTED

# Every connection and every look-up of a host's name that Python makes goes to stderr.
LISTENING_IN = """
import runpy, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("ASKED", event, arguments[event != "socket.getaddrinfo"], file=sys.stderr, flush=True)
sys.addaudithook(hook)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Answer:
    """Hold the answer to the button of a tab: a line, captions, paths of pictures and of downloads, or a sentence."""

    line: str = ""
    captions: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    refused: str | None = None


@dataclass
class Page:
    """Hold the address of a page, and do what its visitors can do without a browser."""

    url: str

    def get(self, path: str) -> bytes:
        """Return the body of a page or file; raise `HTTPError` for anything but success."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def body(self, tab: str, *values: Any, visitor: str = "test") -> bytes:
        """Return the request of a tab's button; tabs are told apart by how many values they have."""
        config = json.loads(re.findall(r"window.gradio_config = (.*?);</script>", self.get("/").decode())[0])
        count = {"classes": 5, "blend": 7, "walk": 6, "find": 1, "label": 2}[tab]
        number = next(event["id"] for event in config["dependencies"] if len(event["inputs"]) == count)
        return json.dumps({"data": values, "fn_index": number, "session_hash": visitor}).encode()

    def ask(self, tab: str, *values: Any, visitor: str = "test") -> Answer:
        """Join the queue and wait for the answer, as the page does."""
        return self.send(self.body(tab, *values, visitor=visitor), visitor)

    def send(self, body: bytes, visitor: str) -> Answer:
        """Send a body made by `body`, and return the answer."""
        join = urllib.request.Request(f"{self.url}/gradio_api/queue/join", body, {"content-type": "application/json"})
        try:
            urllib.request.urlopen(join, timeout=60).close()
        except HTTPError as error:
            return Answer(refused=json.loads(error.read())["detail"])
        with urllib.request.urlopen(f"{self.url}/gradio_api/queue/data?session_hash={visitor}", timeout=120) as lines:
            for line in lines:
                message = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed":
                    return _answer(message)
        raise AssertionError("no answer")


def _answer(message: dict[str, Any]) -> Answer:
    if not message["success"]:
        return Answer(refused=str(message["output"]["error"]))
    line, gallery, files = message["output"]["data"]
    items = gallery["value"]
    pictures = [f"/gradio_api/file={item['image']['path']}" for item in items]
    downloads = [f"/gradio_api/file={file['path']}" for file in files]
    return Answer(line, [item["caption"] for item in items], pictures, downloads)


@dataclass
class Served(Page):
    """Hold a running page: its address, its process and the log of that process."""

    log: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def served(checkpoint: Path, folder: Path) -> Iterator[Served]:
    """Start the page on a free port, and check that Ctrl-C ends it with one line."""
    log, script = folder / "log.txt", ROOT / "scripts/demo_app.py"
    process = start("-c", LISTENING_IN, script, "--checkpoint", checkpoint, "--port", "0", log=log)
    try:
        deadline = time.monotonic() + 120
        while not (address := re.search(r"^open (http\S+) ", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Served(address[1], log, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == INTERRUPTED, log.read_text()
        assert log.read_text().splitlines()[-1] == "stopped by Ctrl-C"
    finally:
        process.kill()
        process.wait()
