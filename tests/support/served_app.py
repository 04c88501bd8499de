"""scripts/demo_app.py in a process of its own, which writes down whom it asks for anything."""

import contextlib
import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.paths import ROOT
from support.small_runs import start

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
class Served:
    """A running page: its address and what its process has written so far."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> bytes:
        """The body of a page or file; HTTPError for anything but success."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def ask(self, tab: str, *values: Any) -> tuple[str, str]:
        """What the button of a tab gets for these values: the line above the pictures, and the pictures, as HTML."""
        with urllib.request.urlopen(self.request(tab, *values), timeout=120) as answer:
            status, pictures = json.load(answer)["data"]
        return status, pictures if isinstance(pictures, str) else ""

    def request(self, tab: str, *values: Any) -> urllib.request.Request:
        """As the page sends it: the tabs are told apart by how many values they have."""
        config = json.loads(re.findall(r"window.gradio_config = (.*?);</script>", self.get("/").decode())[0])
        count = {"classes": 5, "blend": 7, "walk": 6}[tab]
        number = next(event["id"] for event in config["dependencies"] if len(event["inputs"]) == count)
        body = json.dumps({"data": values, "fn_index": number, "session_hash": "test"}).encode()
        headers = {"content-type": "application/json"}
        return urllib.request.Request(f"{self.url}/gradio_api/run/predict", body, headers)


@contextlib.contextmanager
def served(checkpoint: Path, folder: Path) -> Iterator[Served]:
    """Start the page on a free port; Ctrl-C ends it, without an error."""
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
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
