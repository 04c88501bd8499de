"""Check the range of a configuration's values."""

import math

from hamgan.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message if the condition is false."""
    if not condition:
        raise ConfigError(message)


def positive(section: str, values: object, *names: str) -> None:
    """Raise ConfigError for the first of these fields of a section that is not positive and finite."""
    for name in names:
        value = getattr(values, name)
        require(0 < value < math.inf, f"{section}.{name} is {value}; it must be positive and finite")


def not_negative(section: str, values: object, *names: str) -> None:
    """Raise ConfigError for the first of these fields of a section that is negative or not finite."""
    for name in names:
        value = getattr(values, name)
        require(0 <= value < math.inf, f"{section}.{name} is {value}; allowed: 0 and above")


def above_one(section: str, values: object, *names: str) -> None:
    """Raise ConfigError for the first of these fields of a section, factors on a usual value, that is not above 1."""
    for name in names:
        value = getattr(values, name)
        require(value > 1, f"{section}.{name} is {value}; it multiplies the usual value, so it must be above 1")


def below_one(section: str, values: object, *names: str) -> None:
    """Raise ConfigError for the first of these fields of a section that is outside [0, 1)."""
    for name in names:
        value = getattr(values, name)
        require(0 <= value < 1, f"{section}.{name} is {value}; allowed: 0 to below 1")
