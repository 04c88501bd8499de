"""Define every exception of the package, and helpers that word errors. Imports no torch."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

DONE, FAILURE, BAD_USAGE, STOPPED = 0, 1, 2, 75
"""Exit codes; `STOPPED` means stopped by a signal, to be continued by the same command."""
INTERRUPTED, NO_READER = 130, 141
"""Exit codes of Ctrl-C and of a closed output pipe, 128 + signal as in a shell."""


class ConfigError(ValueError):
    """Report a configuration or an option that cannot be used; the message says which, why, and what is allowed."""


class DataError(ConfigError):
    """Report images that cannot be used; the message says which, why, and what is needed."""


class UnclassedError(DataError):
    """Report a source without any class; an evaluation may still use it as a whole."""


class PictureError(DataError):
    """Report one picture that cannot be used; the message is its reason in skipped.jsonl."""


class PreparationError(RuntimeError):
    """Report a preparation that had to stop; the same command continues it."""


class CheckpointError(RuntimeError):
    """Report a checkpoint or generator file that cannot be used; the message names the file and the reason."""


class ConversionError(CheckpointError):
    """Report weights of another project that cannot be converted; the message names the tensor or file."""


class OtherProcessFailed(RuntimeError):
    """Report that another process of this run has failed; the message is from that process."""


class RaisedByAll(Exception):
    """Report an error that all processes of a run raise together, so that none waits for another."""


class Stopped(RaisedByAll):
    """Report that a signal asked the run to stop and a checkpoint has been saved."""


class Diverged(RaisedByAll):
    """Report that the run has diverged or collapsed and may not be rolled back (again)."""


class Collapse(Exception):
    """Carry the monitor's alarm from a training step to the code that rolls back."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def one_line(error: BaseException) -> str:
    """Return an error's message on one line of at most 300 characters, or its type if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean `x`?"`` with the nearest known name, or an empty string if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return hint_at(near[0] if near else None)


def hint_at(near: object) -> str:
    """Return ``"; did you mean `near`?"``, or an empty string for None."""
    return "" if near is None else f"; did you mean `{near}`?"


def refuse_renamed(arguments: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Raise ConfigError for an option of an earlier version; ``renamed`` maps old names to new ones."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in renamed:
            raise ConfigError(f"{name} is called {renamed[name]} now")
