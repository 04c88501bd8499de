"""Find or download the weights file of an extractor, and check that it is the published one."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.files import sha256

OFFLINE = "efficientnet-lite0"
"""The extractor whose weights are in an installed package."""
SECONDS_TO_ANSWER = 10.0
"""Time after which a silent server counts as unreachable; the system's default is two minutes."""


@dataclass(frozen=True)
class PublishedWeights:
    """Describe the weights file that published numbers of an extractor use."""

    title: str
    """Name of the network in messages, such as ``Inception``."""
    url: str
    sha256: str
    """First digits of its hash, eight or more."""
    variable: str
    """Environment variable with the path of the file."""
    option: str = ""
    """Option with the path of the file; ``option_sha256`` is the one with another hash."""
    option_sha256: str = ""
    file_name: str = ""
    """Name in torch's cache, if it is not the last part of the address."""

    @property
    def name(self) -> str:
        """Return the file's name in the cache of torch.hub."""
        return self.file_name or self.url.rsplit("/", 1)[1]

    @property
    def described(self) -> str:
        """Return the file's name with the first digits of its hash."""
        return f"{self.name} (sha256 {self.sha256[:16]}...)"


def find_weights(
    published: PublishedWeights,
    path: str | Path | None = None,
    weights_sha256: str | None = None,
    allow_download: bool = True,
) -> Path:
    """Return the weights file: ``path``, else the environment variable's, else torch's cache (downloaded once).

    ``weights_sha256`` has the first digits of another hash, for weights of your own. Raises ConfigError, naming the
    file to provide, if there is none or its hash differs.
    """
    expected = weights_sha256 if weights_sha256 is not None else published.sha256
    given = path or os.environ.get(published.variable)
    file = Path(given or f"{torch.hub.get_dir()}/checkpoints/{published.name}")
    if not file.is_file() and given:
        origin = published.option if path else f"${published.variable}"
        raise ConfigError(
            f"{origin} names {file}, which is not a file; bring {published.described} from {published.url}"
        )
    if not file.is_file():
        _download(published, file, allow_download)
    found = sha256(file)
    if not found.startswith(expected.lower()) or len(expected) < 8:
        digits = f"{published.option_sha256} (8 digits or more): it labels their numbers"
        own = f"; for weights of your own, state their hash by {digits}"
        raise ConfigError(
            f"{file} has sha256 {found[:16]}..., not {expected[:16]}...: it is not {published.name} or damaged"
            + (own if published.option_sha256 else f"; the file is at {published.url}")
        )
    return file


def find_weights_on_every_process(
    published: PublishedWeights, path: str | Path | None, weights_sha256: str | None
) -> Path:
    """Find or download weights on the main process first; all processes raise ConfigError if it finds none."""
    processes, problem = Processes.current(), ""
    if processes.is_main:
        try:
            find_weights(published, path, weights_sha256)
        except ConfigError as error:
            problem = str(error)
    if processes.any(bool(problem)):
        raise ConfigError(problem or f"the first process found no {published.title} weights; its message says why")
    # A node without a shared home folder finds nothing and downloads for itself.
    return find_weights(published, path, weights_sha256)


def _download(published: PublishedWeights, file: Path, allow: bool) -> None:
    if allow:
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading the {published.title} weights from {published.url} ...", file=sys.stderr)
        try:
            with _socket_timeout(SECONDS_TO_ANSWER):
                torch.hub.download_url_to_file(published.url, str(file), hash_prefix=published.sha256)
            return
        except (OSError, RuntimeError) as error:
            reason = f"could not be downloaded ({getattr(error, 'reason', error)})"
    else:
        reason = "is not here"
    option = f"{published.option} FILE or " if published.option else ""
    raise ConfigError(
        f"the {published.title} weights: {published.url} {reason}; bring {published.described} and name it by {option}"
        f"${published.variable}, or take --features {OFFLINE}, which need no network"
    )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for connections made in this context, since torch.hub has no such option."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
