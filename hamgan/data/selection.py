"""Train on a selection of a source's images: the index of `hamgan prepare select`, and the selected source."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hamgan.data.source import Description, ImageSource, ReadsAhead
from hamgan.errors import DataError, one_line
from hamgan.files import write_atomically

FORMAT = "hamgan-selection-1"


@dataclass(frozen=True)
class Selection:
    """Hold the indices of the selected images of a split, and how they were chosen."""

    split: str
    source_sha256: str
    """sha256 of the split that the index belongs to, from the description of its source."""
    features: str
    """Name of the extractor, with the first digits of its weights' hash."""
    keep: float
    """Share of every class that is kept."""
    indices: np.ndarray
    """int64 [N], ascending."""

    @property
    def sha256(self) -> str:
        """Return the hash of the indices."""
        return hashlib.sha256(np.ascontiguousarray(self.indices, "<i8").tobytes()).hexdigest()

    def __str__(self) -> str:
        return f"the densest {self.keep:.3g} of every class by {self.features} (index {self.sha256[:8]})"

    def save(self, file: Path) -> None:
        """Write the index as JSON."""
        values = {key: value for key, value in asdict(self).items() if key != "indices"}
        whole = {"format": FORMAT, **values, "sha256": self.sha256, "indices": self.indices.tolist()}
        write_atomically(file, json.dumps(whole) + "\n")


def read_selection(file: Path) -> Selection:
    """Read an index; raises DataError for other or damaged files."""
    try:
        values = json.loads(file.read_text())
        if values["format"] != FORMAT:
            raise DataError(f"{file} has format {values['format']!r}; this version reads {FORMAT}")
        fields = {key: values[key] for key in ("split", "source_sha256", "features", "keep")}
        selection = Selection(**fields, indices=np.asarray(values["indices"], np.int64))
        if selection.sha256 != values["sha256"]:
            raise DataError(f"{file} is damaged: its indices do not match its hash; select anew")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no index of `hamgan prepare select` ({one_line(error)})") from error
    return selection


class SelectedSource:
    """Present the images of a source that are in an index, in its order."""

    def __init__(self, source: ImageSource, file: str | Path) -> None:
        selection = read_selection(Path(file).expanduser())
        found = source.describe()["sha256"]
        if selection.source_sha256 != found:
            raise DataError(
                f"{file} was made from other images than {source.name} ({source.split}) holds: its hash is "
                f"{selection.source_sha256[:8]}, that of the images {found[:8]}; run `hamgan prepare select` again"
            )
        self._source, self.selection = source, selection
        self.name, self.split, self.resolution = source.name, source.split, source.resolution
        self.class_names = source.class_names
        self.labels = source.labels[selection.indices]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3]."""
        return self._source.read(self.selection.indices[indices], out)

    def expect(self, indices: np.ndarray) -> None:
        """Announce the images that are read soon, if the source supports it."""
        if isinstance(self._source, ReadsAhead):
            self._source.expect(self.selection.indices[indices])

    def describe(self) -> Description:
        """Return the protocol of the source, with the selection."""
        return {**self._source.describe(), "count": len(self), "selection": str(self.selection)}


def select_densest(
    source: ImageSource,
    extract: Callable[[np.ndarray], np.ndarray],
    score: Callable[[np.ndarray], np.ndarray],
    keep: float,
    report: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Return the ascending indices of the images of every class whose features have the highest scores.

    ``extract`` maps images uint8 [B, H, W, 3] to features [B, D], ``score`` maps the features [n, D] of a class to
    scores [n]. Of n images max(2, round(keep n)) are kept. ``report`` is called with the number of images just
    processed.
    """
    kept = []
    for label in range(len(source.class_names)):
        members = np.flatnonzero(source.labels == label)
        parts = []
        for start in range(0, len(members), 256):
            parts.append(extract(source.read(members[start : start + 256])))
            report(len(parts[-1]))
        if len(members) <= 2:
            kept.append(members)
            continue
        scores = score(np.concatenate(parts))
        count = max(2, round(keep * len(members)))
        kept.append(members[np.argsort(-scores, kind="stable")[:count]])
    return np.sort(np.concatenate(kept)).astype(np.int64)
