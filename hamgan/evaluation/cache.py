"""Keep the features of references on the disk, so that an evaluation passes over the same real images only once.

The name of a file is a hash of all that its features are a function of: the content of the images (every byte of every
picture, not names and dates), how they are prepared, the extractor, its weights and the versions of what runs it. So a
file is never out of date; those that nobody has read for the longest time go when the folder becomes too large.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError
from hamgan.machine import package_versions

if TYPE_CHECKING:
    from hamgan.evaluation.features.extractor import FeatureExtractor
    from hamgan.evaluation.inputs.images import Images

LARGEST = 4 * 2**30
"""Bytes of all files together."""
PROBED = 16
"""Images that are decoded for the name of a file: another decoder would give other pixels from the same bytes."""


def cache_folder() -> Path:
    """Return where features are kept: ``$XDG_CACHE_HOME/hamgan/features``, else ``~/.cache/hamgan/features``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hamgan" / "features"


def name_file(folder: Path, images: "Images", extractor: "FeatureExtractor") -> Path:
    """Return the file for the features of images; the main process reads them all for it."""
    from hamgan.distributed.group import Processes, from_main

    problem, digest = "", ""
    if Processes.current().is_main:
        try:
            probe = images.read(range(min(PROBED, len(images))))
            identity = {
                **images.describe(),
                **extractor.describe(),
                "count": len(images),
                "content": images.hash_content(),
                "probe": hashlib.sha256(repr(probe.shape).encode() + probe.cpu().numpy().tobytes()).hexdigest(),
                "device": extractor.device.type,
                "versions": package_versions(),
            }
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        except (ConfigError, OSError) as error:
            problem = str(error)
    problem, digest = from_main((problem, digest))
    if problem:
        raise ConfigError(problem)
    return folder / f"{digest[:32]}.safetensors"


def drop_oldest(folder: Path, largest: int = LARGEST) -> None:
    """Delete the files that have not been read for the longest time, until the rest has ``largest`` bytes or less."""
    files = sorted(((path.stat(), path) for path in folder.glob("*.safetensors")), key=lambda item: item[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in files[:-1]:  # never the newest, which has just been written
        if total <= largest:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
