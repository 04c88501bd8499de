"""Share golden numbers, ``--long``, the count of faults, and the use of one thread among all tests."""

import os
from collections.abc import Generator, Iterator

import pytest
import torch
from support.fault_tally import Tally
from support.small_runs import forget_accelerator

TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--long``, as in ``scripts/test.sh --long``."""
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, and some 400 kills")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="takes minutes: scripts/test.sh --long")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skip)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (counted := config.stash[TALLY]).faults:
        terminalreporter.section("faults")
        terminalreporter.write_line(f"{counted.table()}\n{counted.sentence()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a run that meets a fault, for a test with the mark ``fault(name, who)``."""
    report = yield
    if report.when == "call" and (fault := item.get_closest_marker("fault")):
        counted = item.config.stash[TALLY]
        counted.count(*fault.args)
        counted.runs += 1
        counted.lost += report.failed
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep features of references among the files of the tests, for all processes of the tests in common."""
    base = tmp_path_factory.getbasetemp()
    in_common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(in_common / "cache"))
        yield


@pytest.fixture
def new_accelerator() -> Iterator[None]:
    """Let the test make an accelerator of its own, whatever other tests have made, and forget it afterwards."""
    forget_accelerator()
    yield
    forget_accelerator()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Return the count of faults over all tests, which is shown at the end."""
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Return whether ``--long`` was given."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
