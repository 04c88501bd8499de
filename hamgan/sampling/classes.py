"""Read classes and seeds as people write them: indices, ranges, names, synsets."""

import difflib
import functools
import operator
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from hamgan.errors import ConfigError

MOST_NUMBERS = 10_000_000
"""Largest number of seeds or classes in a range; more is a typing error."""
SYNSET = re.compile(r"n\d{8}")


class HasClasses(Protocol):
    """Find classes by name, as a `LoadedGenerator` does."""

    def class_index(self, name: int | str) -> int:
        """Return the index of a class."""
        ...


@functools.cache
def imagenet_names() -> list[str]:
    """Return ImageNet's 1000 class names in the order of their synsets, from torchvision."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def readable_names(class_names: Sequence[str] | None, count: int) -> list[str] | None:
    """Return readable names: a checkpoint's own, or ImageNet's if these are 1000 synsets; None without names."""
    if class_names is not None and count == 1000 and all(SYNSET.fullmatch(name) for name in class_names):
        # Classes have the order of their synsets, which is that of the names.
        return imagenet_names()
    return list(class_names) if class_names is not None else None


def find_class(name: int | str, class_names: Sequence[str] | None, count: int) -> int:
    """Return the index of a class given by name, synset, part of a name, or index; ConfigError names the nearest.

    For a text, names win over indices: ``"10"`` is the class named 10, whatever its index, and if all names are numbers
    no text is an index. An int is always an index.
    """
    if not isinstance(name, str):
        return _check_index(name, count)
    if class_names is None and not name.isdecimal():
        raise ConfigError(f"class {name!r}: this generator has no class names; use 0 to {count - 1}")
    names = list(class_names or ())
    if name in names:
        return names.index(name)
    if name.isdecimal():
        return _find_by_number(name, names, count)
    if SYNSET.fullmatch(name):
        raise ConfigError(f"no class is called {name!r}; the names are {', '.join(names[:3])}, ...")
    return _find_by_words(name, readable_names(class_names, count) or [])


def _check_index(index: object, count: int) -> int:
    try:
        number = operator.index(index)  # type: ignore[arg-type]  # TypeError tells what is no number
    except TypeError as error:
        raise ConfigError(f"class {index!r} is neither a whole number nor a name") from error
    if not 0 <= number < count:
        raise ConfigError(f"class {number} is out of range; there are classes 0 to {count - 1}")
    return number


def _find_by_number(text: str, names: Sequence[str], count: int) -> int:
    """Return the class whose name has this value, such as ``00003`` for ``3``, else the one with this index."""
    values = [int(name) if name.isdecimal() else None for name in names]
    if values.count(int(text)) == 1:
        return values.index(int(text))
    if names and None not in values:  # of classes 1 to 10 the fourth is named 4, so an index would be ambiguous
        raise ConfigError(f"no class is called {text!r}; there are {', '.join(names[:20])}")
    return _check_index(int(text), count)


def _find_by_words(name: str, names: list[str]) -> int:
    plain = _plain(name)
    exact = [index for index, known in enumerate(names) if _plain(known) == plain]
    # ImageNet's names are lists of synonyms: "golden retriever" should find its class.
    found = exact or [index for index, known in enumerate(names) if plain in _plain(known)]
    if len(found) == 1:
        return found[0]
    choices = [names[index] for index in found] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(choices[:5])}" if choices else f"; there are {', '.join(names[:20])}"
    raise ConfigError(f"no class is called {name!r}{hint}")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().replace("_", " ")


def describe_classes(indices: Iterable[int], titles: Sequence[str], most: int = 12) -> str:
    """Return a list of classes for people, each once: ``10 (index 2), cat (index 12)``."""
    chosen = list(dict.fromkeys(indices))
    shown = [f"{titles[index]} (index {index})" for index in chosen[:most]]
    return ", ".join(shown) + (f" and {len(chosen) - most:,} more" if len(chosen) > most else "")


def numbers_in(text: str, what: str) -> Iterator[int]:
    """Yield the numbers in a text lazily: 0, 1, 2, 3, 7 for ``"0-3,7"``.

    So a caller with untrusted text can stop before the end of a long range. Raises ConfigError for a part that is
    neither a number nor a range; ``what`` names it.
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
                indices += [generator.class_index(str(number)) for number in numbers_in(text, "class range")]
            else:
                indices.append(generator.class_index(text))
    return indices
