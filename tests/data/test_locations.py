"""Check that shards at an address are fetched once per machine and trained on unchanged."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.prepared import write_shards

from hamgan.data import open_source
from hamgan.data.finding.locations import DATA_SETS
from hamgan.data.finding.tables import CIFAR
from hamgan.data.opening import EMBEDDED
from hamgan.errors import DataError


class Handler(SimpleHTTPRequestHandler):
    """Serve files, and record which were asked for."""

    asked: list[str]

    def log_message(self, format: str, *arguments: object) -> None:
        if self.command == "GET":
            self.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    Handler.asked = []
    monkeypatch.setenv("HAMGAN_DATA", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served"))) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_shards_over_http_are_fetched_once(server: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "served")
    local = open_source(str(tmp_path / "served" / "shard-{000..001}.tar"), "train", 32)
    for _ in range(2):
        source = open_source(f"{server}/shard-{{000..001}}.tar", "train", 32)
        assert np.array_equal(source.labels, local.labels)
        assert np.array_equal(source.read(np.arange(len(source))), local.read(np.arange(len(local))))
    assert sorted(Handler.asked) == ["/shard-000.tar", "/shard-001.tar"]


def test_a_shard_that_is_not_there_is_named(server: str) -> None:
    with pytest.raises(DataError, match=r"shard-000\.tar cannot be"):
        open_source(f"{server}/shard-{{000..001}}.tar", "train", 32)


def test_every_data_set_is_among_the_names_that_no_path_is_needed_for() -> None:
    assert set(DATA_SETS) == {*EMBEDDED, *CIFAR}
