"""Run the `hamgan` command and the scripts, and turn every user error into one sentence and an exit code."""

import faulthandler
import os
import select
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from hamgan.errors import (
    BAD_USAGE,
    DONE,
    FAILURE,
    NO_READER,
    STOPPED,
    CheckpointError,
    ConfigError,
    Diverged,
    OtherProcessFailed,
    PreparationError,
    Stopped,
    did_you_mean,
    one_line,
)
from hamgan.interrupts import CtrlC, end_interrupted, end_now
from hamgan.machine import hamgan_version, keep_freed_memory, let_waiting_threads_sleep

# A launcher ends all processes right after the first; a process that is still running then has an error of its own.
SECONDS_FOR_THE_FIRST = 5.0

COMMANDS = {
    "train": ("hamgan.training.command", "train a configuration; the same command again resumes"),
    "sample": ("hamgan.sampling.command", "draw images: sheets, folders, arrays, animations"),
    "average": ("hamgan.sampling.averaging", "average G over another length of its training"),
    "evaluate": ("hamgan.evaluation.command", "compute FID, Inception Score and others, with their protocol"),
    "prepare": ("hamgan.data.preparation.command", "prepare a store of training images"),
    "prepare select": ("hamgan.evaluation.selection", "select the densest share of every class to train on"),
    "export": ("hamgan.sharing.command", "share a generator: ONNX, torch.export, a folder or hub repository"),
    "convert": ("hamgan.convert.command", "convert weights of BigGAN-PyTorch or the official HamGAN"),
    "invert": ("hamgan.inversion.command", "find the latent and class nearest to a picture"),
    "report": ("hamgan.tracking.html.command", "write a run as one HTML page"),
    "segment": ("hamgan.segmentation.command", "train, evaluate and use segmenters: HamNet and Light-Ham"),
    "app": ("hamgan.app.command", "serve a web page to play with a generator or segmenter"),
    "doctor": ("hamgan.training.doctor", "describe this machine, to paste into an issue"),
}
"""Name of a command -> (module whose ``main(arguments, prog)`` runs it, what it does)."""


def main() -> None:
    """Run ``hamgan COMMAND ...``."""
    run(lambda: _dispatch(sys.argv[1:]))


def run_command(name: str) -> None:
    """Run one command as a script of its own, such as ``scripts/train.py``, which `accelerate launch` takes."""
    run(lambda: _call(name, sys.argv[1:], os.path.basename(sys.argv[0])))


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:16}{text}" for name, (_, text) in COMMANDS.items())
        about = "Train, sample and evaluate Hamburger GANs; segment images."
        print(f"usage: hamgan COMMAND [--help]\n\n{about}\n\n{lines}")
        return
    name, *rest = arguments
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name == "--version":
        print(f"hamgan {hamgan_version()}")
        return
    if name not in COMMANDS:
        raise ConfigError(f"unknown command `{name}`; there are {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    _call(name, rest, f"hamgan {name}")


def _call(name: str, arguments: list[str], prog: str) -> None:
    # Imported here, so that the help of one command waits neither for the others nor for torch.
    import_module(COMMANDS[name][0]).main(arguments, prog)


def run(main: Callable[[], None]) -> None:
    """Call ``main`` and exit: 0 done, 2 bad usage, 1 failure, 75 stopped and can be continued, 130 Ctrl-C.

    A closed output pipe (``hamgan ... | head``) ends the process silently with 141.
    """
    keep_freed_memory()
    let_waiting_threads_sleep()
    if sys.__stderr__ is not None:  # a mapped file that was truncated kills silently
        # Other threads run on: printing their stacks may crash before it comes to the one that failed.
        faulthandler.enable(sys.__stderr__, all_threads=False)
    with CtrlC():
        try:
            _exit_after(main)
        except KeyboardInterrupt:
            end_interrupted()
        except SystemExit:
            if sys.stdout is not None:
                try:
                    sys.stdout.flush()
                except BrokenPipeError:
                    end_now(NO_READER)
            raise


def _exit_after(main: Callable[[], None]) -> NoReturn:
    try:
        main()
    except ConfigError as error:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # most likely the first process prints the same
            time.sleep(SECONDS_FOR_THE_FIRST)
        _end(BAD_USAGE, f"error: {error}")
    except Exception as error:
        rank = int(os.environ.get("RANK", 0))
        if isinstance(error, (Stopped, Diverged, OtherProcessFailed)) and rank > 0:
            time.sleep(1.0)  # let the main process print its message before a launcher ends it
            _end(STOPPED if isinstance(error, Stopped) else FAILURE, "")
        if isinstance(error, Stopped):
            _end(STOPPED, f"stopped: {error}")
        if isinstance(error, BrokenPipeError) and _output_has_no_reader():
            end_now(NO_READER)
        # OSError: no space, no permission, not a folder
        if isinstance(error, (CheckpointError, PreparationError, Diverged, OtherProcessFailed, OSError)):
            _end(FAILURE, f"error: {error}")
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which may not have been loaded
            hint = "use a larger --train.accumulation in training, a smaller --batch-size elsewhere"
            _end(FAILURE, f"error: {one_line(error).rstrip('.')}; {hint}")
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            _end(FAILURE, "".join(traceback.format_exception(error)).rstrip())
        raise
    _end(DONE, "")


def _output_has_no_reader() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _end(code: int, message: str) -> NoReturn:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Closing a process group whose other processes are gone may wait for its timeout, and a thread of torch's that
        # still runs may abort the process: a finished run would count as failed.
        end_now(code, message)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)
