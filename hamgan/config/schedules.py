"""Read schedules, which change a value linearly or along a cosine over a number of images."""

import functools
import math
import re
from dataclasses import dataclass

from hamgan.errors import ConfigError, did_you_mean

FORMS = ("constant", "linear", "cosine")
_PATTERN = re.compile(r"(\w+)(?: to (\S+))?(?: by (\S+))?")


@dataclass(frozen=True)
class Schedule:
    """Move a value from its start to ``target``, reached after ``kimg`` thousand images; None: at the run's end."""

    form: str
    target: float = 0.0
    kimg: float | None = None

    @property
    def is_constant(self) -> bool:
        """Return whether the value never changes."""
        return self.form == "constant"

    @property
    def follows_length(self) -> bool:
        """Return whether the schedule depends on the length of the run."""
        return not self.is_constant and self.kimg is None

    def value(self, start: float, images: int, total_kimg: float) -> float:
        """Return the value after ``images`` real images in a run of ``total_kimg`` thousand."""
        if self.is_constant:
            return start
        passed = min(1.0, images / (1000 * (self.kimg or total_kimg)))
        if self.form == "cosine":
            return self.target + (start - self.target) * (1 + math.cos(math.pi * passed)) / 2
        return start + (self.target - start) * passed


@functools.cache
def parse_schedule(text: str, where: str) -> Schedule:
    """Read ``constant``, or ``linear`` or ``cosine`` with ``to VALUE`` (else 0) and ``by KIMG`` (else the run's end).

    ``where`` is the key, for the message of the ConfigError that anything else raises.
    """
    found = _PATTERN.fullmatch(text.strip())
    words = "write constant, or linear or cosine with `to VALUE` and `by KIMG`, such as `cosine to 0.25 by 20000`"
    if found is None:
        raise ConfigError(f"{where} is {text!r}; {words}")
    form, target, kimg = found.groups()
    if form not in FORMS:
        raise ConfigError(f"{where} is {text!r}{did_you_mean(form, FORMS)}; {words}")
    try:
        schedule = Schedule(form, float(target or 0), None if kimg is None else float(kimg))
    except ValueError:
        raise ConfigError(f"{where} is {text!r}, in which not every value is a number; {words}") from None
    if schedule.kimg is not None and not 0 < schedule.kimg < math.inf:
        raise ConfigError(f"{where} is {text!r}; a schedule takes more than 0 kimg")
    if schedule.is_constant and (target or kimg):
        raise ConfigError(f"{where} is {text!r}; constant leads nowhere: {words}")
    return schedule
