"""Download or publish a network on a Hugging Face hub, with clear errors.

This uses `huggingface_hub` without its ModelHubMixin, a base class that would have to be installed to load a local
file, and that stores a second copy of the configuration next to the one in the weights' header.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hamgan.errors import CheckpointError, ConfigError, one_line

GENERATOR_FILE = "generator.safetensors"
LOG_IN = "log in (hf auth login, or a token in $HF_TOKEN)"


def download(
    name: str, revision: str | None = None, token: str | None = None, files: Sequence[str] = (GENERATOR_FILE,)
) -> Path:
    """Return the path of the first of ``files`` that the repository ``owner/name`` has, downloaded or cached.

    Raises CheckpointError if there is no such repository or none of these files, if it is gated, or without a network.
    """
    require_hub(f"there is no checkpoint at {name}; to load it from a hub")
    from huggingface_hub import errors, hf_hub_download

    with _as_sentences(name, f"there is no checkpoint at {name}, and the hub gives none", revision, files):
        for file in files[:-1]:
            with suppress(errors.EntryNotFoundError):
                return Path(hf_hub_download(name, file, revision=revision, token=token))
        return Path(hf_hub_download(name, files[-1], revision=revision, token=token))


def upload(folder: Path, name: str, *, private: bool | None, token: str | None, message: str) -> str:
    """Publish a folder as the repository ``owner/name``, created if needed, in one commit; returns its URL.

    Raises CheckpointError for a missing token, one without write access, no network, or an unusable name.
    """
    require_hub("to publish")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _as_sentences(name, f"could not publish {name}"):
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(folder_path=folder, repo_id=name, commit_message=message)
    return address


def check_login(token: str | None) -> None:
    """Raise CheckpointError if publishing is not possible without a token, before any work is done."""
    require_hub("to publish")
    from huggingface_hub import get_token

    if not token and not get_token():
        raise CheckpointError(f"publishing needs an account on the hub: {LOG_IN}")


def require_hub(what: str) -> None:
    """Raise ConfigError, naming the package to install, if huggingface_hub is missing."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{what}: pip install huggingface_hub") from error


def _is_of_http_client(error: Exception) -> bool:
    """Return whether an error comes from an HTTP library of some version of huggingface_hub."""
    # Before 1.30 a second attempt uses the client that the first has closed.
    if isinstance(error, RuntimeError):
        return "client has been closed" in str(error)
    return type(error).__module__.partition(".")[0] in ("requests", "httpx", "httpx2")


@contextmanager
def _as_sentences(name: str, what: str, revision: str | None = None, files: Sequence[str] = ()) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError | ValueError) or _is_of_http_client(error):
            raise CheckpointError(f"{what}: {_explain(error, name, revision, files)}") from error
        raise


def _explain(error: Exception, name: str, revision: str | None, files: Sequence[str]) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name}"
    response = getattr(error, "response", None)  # old versions have the attribute even without a response
    status = None if response is None else response.status_code
    if isinstance(error, errors.GatedRepoError):
        return f"{page} is gated; ask for access on that page, then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no repository is at {page}, or it is private: then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no revision {revision}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{constants.ENDPOINT} cannot be reached, and no earlier download of {name} is here"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} has no {' or '.join(files)}"
    if isinstance(error, errors.OfflineModeIsEnabled) or _is_of_http_client(error):
        return f"{constants.ENDPOINT} cannot be reached"
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is not the name of a repository, such as owner/name"
    if status in (401, 403):
        return f"the token is not valid or may not write to {page}"
    return one_line(error)
