"""How scripts end: one sentence and an exit code for whatever a user can do wrong."""

import sys
from collections.abc import Callable

from hamgan.config import ConfigError

DONE, FAILURE, BAD_USAGE, STOPPED = 0, 1, 2, 75


def run(main: Callable[[], None]) -> None:
    """Call ``main`` and exit: 0 done, 2 bad usage, 1 failure, 75 stopped on a signal with a checkpoint saved."""
    # Imported here: `--help` should not wait for torch.
    try:
        main()
    except ConfigError as error:
        _end(BAD_USAGE, error)
    except Exception as error:
        from hamgan.checkpoint import CheckpointError
        from hamgan.training import Diverged, Stopped

        if isinstance(error, Stopped):
            _end(STOPPED, error)
        if isinstance(error, (CheckpointError, Diverged, OSError)):  # OSError: no space, no permission, not a folder
            _end(FAILURE, error)
        raise
    sys.exit(DONE)


def _end(code: int, error: Exception) -> None:
    kind = "stopped" if code == STOPPED else "error"
    print(f"{kind}: {error}", file=sys.stderr)
    sys.exit(code)
