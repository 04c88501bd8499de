"""Read classes and seeds as people write them: indices, ranges, names, synsets."""

import difflib
import functools
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from hamgan.errors import ConfigError

MOST_NUMBERS = 10_000_000
"""Seeds or classes that a range may name; far more than this is a slip of the keyboard."""
SYNSET = re.compile(r"n\d{8}")


class HasClasses(Protocol):
    """Find classes by name, as a `LoadedGenerator` does."""

    def class_index(self, name: int | str) -> int:
        """Return the index of a class."""
        ...


@functools.cache
def imagenet_names() -> list[str]:
    """Return ImageNet's 1000 class names in the order of their synsets; torchvision ships them beside its weights."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def readable_names(class_names: Sequence[str] | None, count: int) -> list[str] | None:
    """Return names for people: a checkpoint's own, ImageNet's where these are 1000 synsets; None where it has none."""
    if class_names is not None and count == 1000 and all(SYNSET.fullmatch(name) for name in class_names):
        # Folders of synsets are numbered in their order, which is the order of the names.
        return imagenet_names()
    return list(class_names) if class_names is not None else None


def find_class(name: int | str, class_names: Sequence[str] | None, count: int) -> int:
    """Return the index of a class given by index, name, part of a name, or synset; ConfigError names the nearest."""
    if not isinstance(name, str) or name.isdecimal():
        try:
            index = int(name) if isinstance(name, str) else operator.index(name)
        except TypeError as error:
            raise ConfigError(f"class {name!r} is neither a whole number nor a name") from error
        if not 0 <= index < count:
            raise ConfigError(f"class {index} is out of range; there are classes 0 to {count - 1}")
        return index
    if class_names is None:
        raise ConfigError(f"class {name!r}: this generator has no class names; use 0 to {count - 1}")
    if name in class_names:
        return list(class_names).index(name)
    if SYNSET.fullmatch(name):
        raise ConfigError(f"no class is called {name!r}; the names are {', '.join(class_names[:3])}, ...")
    return _find_by_words(name, readable_names(class_names, count) or [])


def _find_by_words(name: str, names: list[str]) -> int:
    lowered = name.lower().replace("_", " ")
    exact = [index for index, known in enumerate(names) if known.lower() == lowered]
    # ImageNet's names are lists of synonyms: "golden retriever" should find its class.
    found = exact or [index for index, known in enumerate(names) if lowered in known.lower()]
    if len(found) == 1:
        return found[0]
    choices = [names[index] for index in found] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(choices[:5])}" if choices else f"; there are {', '.join(names[:20])}"
    raise ConfigError(f"no class is called {name!r}{hint}")


def numbers_in(text: str, what: str) -> Iterator[int]:
    """Yield the numbers of a text one after the other: of ``"0-3,7"`` 0, 1, 2, 3, 7.

    A caller that takes text from strangers can stop before the end of a long range. Raises ConfigError where a part is
    no number and no range.
    """
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 18 or len(last) > 18:
            raise ConfigError(f"{what} {part.strip()!r}: give numbers and ranges such as 0-7,12")
        if dash and int(last) < int(first):
            raise ConfigError(f"{what} {part.strip()!r} runs backwards; write {last}-{first}")
        if dash and int(last) - int(first) >= MOST_NUMBERS:
            raise ConfigError(f"{what} {part.strip()!r} names more than {MOST_NUMBERS:,} numbers")
        yield from range(int(first), int(last) + 1) if dash else [int(first)]


def parse_numbers(text: str, what: str) -> list[int]:
    """Return the numbers of a text, of ``"0-3,7"`` [0, 1, 2, 3, 7]; ConfigError where one is no number or range."""
    return list(numbers_in(text, what))


def parse_classes(texts: Iterable[str], generator: HasClasses) -> list[int]:
    """Return the indices of names, indices and ranges (``207,980-985,volcano``); ConfigError names the nearest."""
    indices: list[int] = []
    for item in texts:
        try:  # ImageNet's names have commas: "tench, Tinca tinca"
            indices.append(generator.class_index(item))
            continue
        except ConfigError:
            if "," not in item and not re.fullmatch(r"\d+-\d+", item):
                raise
        for text in (part.strip() for part in item.split(",")):
            first, dash, last = text.partition("-")
            if dash and first.isdecimal() and last.isdecimal():
                indices += [generator.class_index(number) for number in numbers_in(text, "class range")]
            else:
                indices.append(generator.class_index(text))
    return indices
