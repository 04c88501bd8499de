"""Find the weights file of an extractor, download it once, and check that it is the published one."""

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
"""The extractor whose weights come with a package."""
SECONDS_TO_ANSWER = 10.0
"""A server that is silent for so long is taken to be out of reach; the system would wait for two minutes."""


@dataclass(frozen=True)
class PublishedWeights:
    """Describe the one file that everybody's numbers with an extractor are made with."""

    title: str
    """Name of the network in messages, as ``Inception``."""
    url: str
    sha256: str
    """First digits of its hash, eight or more."""
    variable: str
    """Environment variable that may name the file."""
    option: str = ""
    """Option of the command line that names the file, and ``option_sha256`` the one that names another hash."""
    option_sha256: str = ""
    file_name: str = ""
    """Name in torch's cache where it is not the address's last part."""

    @property
    def name(self) -> str:
        """Return the file's name, as torch.hub keeps it."""
        return self.file_name or self.url.rsplit("/", 1)[1]

    @property
    def described(self) -> str:
        """Return the file's name with the hash that tells it from others."""
        return f"{self.name} (sha256 {self.sha256[:16]}...)"


def find_weights(
    published: PublishedWeights,
    path: str | Path | None = None,
    weights_sha256: str | None = None,
    allow_download: bool = True,
) -> Path:
    """Find the weights file: ``path``, else the environment variable's, else a download into torch's cache (once).

    ``weights_sha256``: first digits of the hash of weights of one's own. Raises ConfigError, which names the file to
    bring, when there is none, and when its hash differs.
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
    """Find or download weights on the main process first; all processes raise ConfigError where it finds none."""
    processes, problem = Processes.current(), ""
    if processes.is_main:
        try:
            find_weights(published, path, weights_sha256)
        except ConfigError as error:
            problem = str(error)
    if processes.any(bool(problem)):
        raise ConfigError(problem or f"the first process found no {published.title} weights; its message says why")
    # A node without a shared home finds nothing there, and downloads for itself.
    return find_weights(published, path, weights_sha256)


def _download(published: PublishedWeights, file: Path, allow: bool) -> None:
    if allow:
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading the {published.title} weights from {published.url} ...", file=sys.stderr)
        try:
            with _impatient_sockets(SECONDS_TO_ANSWER):
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
def _impatient_sockets(seconds: float) -> Iterator[None]:
    """Give up connections that are made in here once they have been silent for so long: torch.hub takes no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
