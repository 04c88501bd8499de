"""Cache the features of references on disk, so that the same real images are processed only once.

The name of a file is a hash of everything that its features depend on: the content of the images (every byte of every
picture, not names and dates), their preparation, the extractor, its weights and the versions of the packages that run
it. So a file is never out of date; when the folder becomes too large, the least recently read files are deleted.
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
"""Largest size of all files together, in bytes."""
PROBED = 16
"""Images that are decoded for the name of a file, since another decoder may give other pixels."""


def cache_folder() -> Path:
    """Return the default folder: ``$XDG_CACHE_HOME/hamgan/features``, else ``~/.cache/hamgan/features``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hamgan" / "features"


def name_file(folder: Path, images: "Images", extractor: "FeatureExtractor") -> Path:
    """Return the file for the features of images; the main process reads all images to hash them."""
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
    """Delete the least recently read files until the rest has ``largest`` bytes or less."""
    files = sorted(((path.stat(), path) for path in folder.glob("*.safetensors")), key=lambda item: item[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    for stat, path in files[:-1]:  # never the newest, which has just been written
        if total <= largest:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
