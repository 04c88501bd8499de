"""Serve the page of a run that each test file of the page makes as its fixture ``run``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.served_app import Served, served

import hamgan
from hamgan import LoadedGenerator


@pytest.fixture(scope="module")
def generator(run: Path) -> LoadedGenerator:
    return hamgan.load_generator(run, "cpu")


@pytest.fixture(scope="module")
def app(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(run, tmp_path_factory.mktemp("app")) as page:
        yield page
