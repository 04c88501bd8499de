"""Run training to be killed: forks of a process that has imported everything, real signals, reports of every moment.

A life is one start of a run, ended by a SIGKILL that comes either from here, some time after a moment that the run has
reported, or from the run itself in front of its n-th operation on a file (Python's audit events), which no clock could
hit. The parent plays the launcher.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from support.fault_tally import BOTH, ONE, ONE_OF_TWO, Tally
from support.small_runs import small_config

from hamgan import cli as command_line
from hamgan import evaluation
from hamgan.checkpoint.state import Snapshot
from hamgan.errors import FAILURE
from hamgan.evaluation import report
from hamgan.training import loop
from hamgan.training import run as running
from hamgan.training.preview import Preview
from hamgan.training.step import GanStep

PRELOADED = (evaluation, report)  # a life begins where Python has imported all that it needs
ALL = -1
RAISE = 0
"""In place of a signal: the process fails by itself."""
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
SECONDS_TO_NOTICE = 60.0


class Kill(NamedTuple):
    """Kill a process ``delay`` seconds after the n-th report of a moment, or in front of its n-th file operation."""

    moment: str = "born"
    nth: int = 1
    delay: float = 0.0
    rank: int = 0
    number: int = signal.SIGKILL


@dataclass
class Life:
    """Record one start of a run, from its beginning to the end of its last process."""

    killed: bool = False
    began: int | None = None
    """Images at which training began, None where it did not come so far."""
    reached: int = 0
    codes: list[int | None] = field(default_factory=list)
    seconds_to_end: float = 0.0
    """From the death of one process to the end of the last one."""
    seconds_from_strike: float = 0.0
    """From the signal to the death of a process."""


MOMENTS: dict[str, tuple[Any, str]] = {
    "step": (GanStep, "discriminator_step"),
    "between": (GanStep, "generator_step"),
    "checkpoint": (Snapshot, "write"),
    "data": (loop, "open_training"),
    "resume": (running, "load_checkpoint"),
    "sheet": (Preview, "draw_sheet"),
    "evaluation": (Preview, "evaluate"),
    "rollback": (running, "commit_rollback"),
}
WORDS = {
    "born": "at start",
    "resume": "while reading a checkpoint",
    "between": "between D's and G's step",
    "images": "after a step",
    "file": "in front of a file operation",
    "checkpoint": "while writing a checkpoint",
    "sheet": "while drawing a sheet",
    "evaluation": "during an evaluation",
    "rollback": "while going back after divergence",
}


def _report_moments(tell: Callable[[str, int], None]) -> None:
    """Have the run report each of `MOMENTS` when it comes to it, and after each step how many images it has seen."""

    def announced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            tell(name, 0)
            return function(*arguments, **options)

        return call

    for name, (owner, attribute) in MOMENTS.items():
        setattr(owner, attribute, announced(name, getattr(owner, attribute)))
    update = GanStep.update_average

    def update_and_tell(self: GanStep, images_seen: int) -> None:
        update(self, images_seen)
        tell("images", images_seen)

    GanStep.update_average = update_and_tell  # type: ignore[method-assign]


def _die_at_file(folder: Path, nth: int) -> None:
    """Kill this process in front of its n-th operation on a file of the run that may change something."""
    inside, seen = str(folder), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in FILE_EVENTS or inside not in str(arguments[0]):
            return
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def live(folder: Path, overrides: list[str], rank: int, world: dict[str, str], kill: Kill, events: Connection) -> None:
    """Train as one process of a run; called in a fork of its own."""
    log = os.open(folder / f"log{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ |= world
    # Where a test prepared a dataset before, the fork server is that of its workers, which block Ctrl-C.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    lock = threading.Lock()  # checkpoints are written in a thread
    fails: Iterator[bool] = itertools.repeat(False)
    if kill.number == RAISE and kill.rank == rank:
        fails = itertools.chain(itertools.repeat(False, kill.nth - 1), [True], itertools.repeat(False))

    def tell(name: str, images: int) -> None:
        with lock:
            events.send((name, images))
        if name == kill.moment and next(fails):
            raise RuntimeError(f"process {rank} was made to fail")

    _report_moments(tell)
    if kill.moment == "file" and kill.rank in (rank, ALL):
        _die_at_file(folder / "run", kill.nth)
    tell("born", 0)

    def main() -> None:
        run = loop.Training(small_config(folder, *overrides), ["train"])
        tell("began", run.progress.images)
        run.run()

    command_line.run(main)


def _context() -> Any:
    """Return a context that forks processes from a server which has imported this module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([Path(__file__).stem])
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    return context


def _world(rank: int, processes: int, port: int) -> dict[str, str]:
    if processes == 1:
        return {}
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    return {key: str(value) for key, value in names.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def start_life(
    folder: Path, overrides: list[str], processes: int, kill: Kill, strike: Callable[[Any], object] | None = None
) -> Life:
    """Start a run and watch it to the end of its last process; ``strike`` is called in place of a killing."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = _context()
    started, pipes = [], []
    for rank in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (folder, overrides, rank, _world(rank, processes, port), kill, theirs)
        started.append(context.Process(target=live, args=arguments))
        started[-1].start()
        theirs.close()
        pipes.append(ours)
    life = Life()
    try:
        _watch(life, started, pipes, kill, strike or (lambda process: os.kill(process.pid, kill.number)))
    finally:
        for process in started:
            process.kill()
            process.join()
    life.codes = [process.exitcode for process in started]
    return life


def _watch(
    life: Life, started: list[Any], pipes: list[Connection], kill: Kill, strike: Callable[[Any], object]
) -> None:
    seen, at, died, struck = 0, float("inf"), float("inf"), float("inf")
    victims = started if kill.rank == ALL else [started[kill.rank]]
    waiting = dict(zip(pipes, range(len(pipes)), strict=True))
    while waiting or any(process.is_alive() for process in started):
        sentinels = [process.sentinel for process in started if process.is_alive()]
        ready = wait([*waiting, *sentinels], timeout=max(0.0, min(at - time.monotonic(), 0.2)))
        for pipe in [pipe for pipe in waiting if pipe in ready]:
            with contextlib.suppress(EOFError):
                name, images = pipe.recv()
                if waiting[pipe] == max(kill.rank, 0) and name == kill.moment:
                    seen += 1
                    at = time.monotonic() + kill.delay if seen == kill.nth else at
                _take_in(life, waiting[pipe], name, images)
                continue
            del waiting[pipe]
        if time.monotonic() >= at:
            at, struck = float("inf"), time.monotonic()
            for process in victims:
                if process.is_alive() and kill.number != RAISE:
                    strike(process)
        if died == float("inf") and any(process.exitcode for process in started):
            died = time.monotonic()
            life.seconds_from_strike = max(0.0, died - struck)
        alive = any(process.is_alive() for process in started)
        # Before all are there only a launcher can end the others; afterwards they have to notice by themselves.
        patience = SECONDS_TO_NOTICE if life.began is not None or kill.number == RAISE else 0.0
        if alive and time.monotonic() - died > patience:
            for process in started:
                process.kill()
    life.killed = any(process.exitcode == -signal.SIGKILL for process in victims)
    life.seconds_to_end = max(0.0, time.monotonic() - died)


def _take_in(life: Life, rank: int, name: str, images: int) -> None:
    if rank == 0 and name == "began":
        life.began = life.reached = images
    if rank == 0 and name == "images":
        life.reached = images


def random_kill(random: Random, processes: int, more: Sequence[str] = ()) -> Kill:
    """Draw any moment of a short run, more often those in which files are written, and ``more`` of `MOMENTS`.

    Delays are stretched at times, since a busy machine stretches the run.
    """
    rank = random.choice([ALL, *range(processes)]) if processes > 1 else 0
    kinds = ["born", "resume", "images", "images", "between", "file", "file", "checkpoint", "checkpoint", "sheet"]
    kind = random.choice([*kinds, *more])
    stretch = random.choice([1, 1, 4])
    if kind == "file":
        return Kill("file", random.randint(1, 50), rank=rank)
    if processes > 1 and kind in ("checkpoint", "sheet"):  # the main process alone does these
        rank = random.choice([0, ALL])
    most, longest = {
        "born": (1, 1.5),
        "resume": (1, 0.05),
        "images": (4, 0.15),
        "between": (4, 0.05),
        "checkpoint": (2, 0.05),
        "sheet": (2, 0.1),
        "evaluation": (1, 0.8),
        "rollback": (2, 0.02),
    }[kind]
    return Kill(kind, random.randint(1, most), random.uniform(0, longest) * stretch, rank)


def lives(
    folder: Path, overrides: list[str], processes: int, kills: Iterable[Kill], tally: Tally, final: int = 0
) -> None:
    """Start a run again after each of the kills, then to its end, and check its exit code ``final``."""
    reached, fault = 0, ""
    for kill in itertools.chain(kills, [Kill("never")]):
        life = start_life(folder, overrides, processes, kill)
        if life.began is not None:
            if fault:
                tally.made_again(fault, reached - life.began)
            reached = life.reached
        if not life.killed:  # to its end, or faster than the kill
            break
        fault = f"SIGKILL {WORDS[kill.moment]}"
        _check_survivors(life, kill, processes)
        tally.count(fault, ONE if processes == 1 else BOTH if kill.rank == ALL else ONE_OF_TWO)
        if life.began is not None:
            tally.seconds_to_end = max(tally.seconds_to_end, life.seconds_to_end)
    assert life.codes == [final] * processes, (folder / "log0.txt").read_text()[-3000:]


def _check_survivors(life: Life, kill: Kill, processes: int) -> None:
    """Check that processes that were not killed have ended by themselves, once training had begun."""
    if life.began is not None and kill.rank != ALL:
        others = [life.codes[rank] for rank in range(processes) if rank != kill.rank]
        assert others in ([], [FAILURE]), f"{kill}: {life}"
