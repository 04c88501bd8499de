"""Words for messages to users: what an error says in one line, and what a mistyped name may have meant."""

import difflib
from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """What an error says, on one line of at most 300 characters; its type's name where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean `x`?"`` with the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
