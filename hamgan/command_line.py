"""How scripts end: one sentence and an exit code for whatever a user can do wrong, once however many processes."""

import faulthandler
import os
import sys
import time
from collections.abc import Callable

from hamgan.config import ConfigError
from hamgan.memory import keep_freed_memory

DONE, FAILURE, BAD_USAGE, STOPPED = 0, 1, 2, 75

# A launcher ends all processes within a moment of the first; one that is still there later has an error of its own.
SECONDS_FOR_THE_FIRST = 5.0


def run(main: Callable[[], None]) -> None:
    """Call ``main`` and exit: 0 done, 2 bad usage, 1 failure, 75 stopped on a signal with a checkpoint saved."""
    keep_freed_memory()
    if sys.__stderr__ is not None:  # a mapped file that has been cut short kills without a word
        faulthandler.enable(sys.__stderr__)
    try:
        main()
    except ConfigError as error:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # most likely what the first process has said
            time.sleep(SECONDS_FOR_THE_FIRST)
        _end(BAD_USAGE, f"error: {error}")
    except Exception as error:
        # Imported here: `--help` should not wait for torch.
        from hamgan.checkpoint import CheckpointError
        from hamgan.processes import OtherProcessFailed
        from hamgan.rollback import Diverged
        from hamgan.stopping import Stopped

        rank = int(os.environ.get("RANK", 0))
        if isinstance(error, (Stopped, Diverged, OtherProcessFailed)) and rank > 0:
            time.sleep(1.0)  # let the main process speak before a launcher ends it
            _end(STOPPED if isinstance(error, Stopped) else FAILURE, "")
        if isinstance(error, Stopped):
            _end(STOPPED, f"stopped: {error}")
        # OSError: no space, no permission, not a folder
        if isinstance(error, (CheckpointError, Diverged, OtherProcessFailed, OSError)):
            _end(FAILURE, f"error: {error}")
        raise
    sys.exit(DONE)


def _end(code: int, message: str) -> None:
    if message:
        print(message, file=sys.stderr)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Closing a process group whose other end is gone may wait for its timeout.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
