"""Define every exception of the package, and word what they say. Imports no torch."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

DONE, FAILURE, BAD_USAGE, STOPPED = 0, 1, 2, 75
"""Exit codes; `STOPPED`: on a signal, with all that is needed to go on."""
INTERRUPTED, NO_READER = 130, 141
"""Exit codes of Ctrl-C and of output that nobody reads any more, as a shell gives them: 128 + signal."""


class ConfigError(ValueError):
    """Report a configuration or an option that cannot be used; the message says which, why, and what is allowed."""


class DataError(ConfigError):
    """Report images that cannot be used; the message says which, why, and what would do."""


class UnclassedError(DataError):
    """Report a source of which no picture has a class; an evaluation may still take it as a whole."""


class PictureError(DataError):
    """Report one picture that cannot be used; the message is the reason that goes into skipped.jsonl."""


class PreparationError(RuntimeError):
    """Report a preparation that had to stop; running the same command again continues it."""


class CheckpointError(RuntimeError):
    """Report a checkpoint or generator file that cannot be used; the message names the file and the reason."""


class ConversionError(CheckpointError):
    """Report foreign weights that cannot be converted; the message says which tensor or file, and what is expected."""


class OtherProcessFailed(RuntimeError):
    """Report that another process of this run has failed; the message is that process's own."""


class RaisedByAll(Exception):
    """Report an error that all processes of a run raise together, so that none is left waiting for another."""


class Stopped(RaisedByAll):
    """Report that a signal asked the run to stop and a checkpoint has been saved."""


class Diverged(RaisedByAll):
    """Report that the run has diverged or collapsed, and may not go back, or not once more."""


class Collapse(Exception):
    """Carry the monitor's alarm from the training steps to the rollback."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def one_line(error: BaseException) -> str:
    """Say what an error says on one line of at most 300 characters; its type's name where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean `x`?"`` with the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return hint_at(near[0] if near else None)


def hint_at(near: object) -> str:
    """Return ``"; did you mean `near`?"``, or an empty string for None."""
    return "" if near is None else f"; did you mean `{near}`?"


def refuse_renamed(arguments: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Raise ConfigError for an option of an earlier version: ``renamed`` maps it to what it is called now."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in renamed:
            raise ConfigError(f"{name} is called {renamed[name]} now")
