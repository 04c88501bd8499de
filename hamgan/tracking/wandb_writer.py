"""Write a run to wandb, with the user's own settings and one wandb run per run folder."""

import os
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from PIL import Image

from hamgan.config import RunConfig, config_to_dict
from hamgan.errors import one_line
from hamgan.files import JsonObject, write_atomically

RUN_ID = "wandb_id.txt"
"""File in a run folder with the id of its wandb run, which every resumption continues."""


class WandbWriter:
    """Write to a wandb run: its step counts the images made, its horizontal axis is kimg.

    If wandb cannot be reached, ``warn`` is called with the reason and the run is written to files for ``wandb sync``.
    """

    def __init__(self, config: RunConfig, warn: Callable[[str], None]) -> None:
        self.config, self.warn = config, warn
        self._first = 0

    @property
    def known(self) -> bool:
        """Return whether the run has been written to wandb before."""
        return (self.config.folder / RUN_ID).is_file()

    def start(self, first: int) -> int:
        """Open the run; returns the first step that it lacks, or ``first`` offline."""
        import wandb

        given = wandb.setup().settings
        settings = self._settings(given)
        try:
            # Without a login the run is written to files to send later; wandb must not wait at a prompt.
            if given.mode == "online" and "WANDB_MODE" not in os.environ and not wandb.login(prompt=False):
                settings["mode"] = "offline"
            # Checked here first, as many versions of wandb wait for an answer for ever.
            elif given.mode == "online" and (reason := why_no_answer(given.base_url, given.init_timeout)):
                self._warn_of_files(reason)
                settings["mode"] = "offline"
            self._run = wandb.init(**settings)
        except Exception as error:
            if given.mode != "online":
                raise
            self._warn_of_files(one_line(error))
            wandb.teardown()  # otherwise the failed attempt keeps the id
            self._run = wandb.init(**settings | {"mode": "offline"})
        write_atomically(self.config.folder / RUN_ID, f"{self._run.id}\n")
        self._first = self._run.step if self._run.resumed else first
        self._run.define_metric("*", step_metric="kimg")
        return self._first

    def _warn_of_files(self, reason: str) -> None:
        self.warn(f"warning: wandb cannot be reached ({reason}); the run is written to files for `wandb sync`")

    def _settings(self, given: Any) -> JsonObject:
        """Return the settings that wandb's own environment variables and files do not set."""
        config, kept = self.config, self.config.folder / RUN_ID
        found: JsonObject = {"config": config_to_dict(config)}
        if config.log.project is not None or given.project is None:
            found["project"] = config.log.project or "hamgan"
        if given.run_name is None:
            found["name"] = config.name
        if given.run_id is None:
            found["id"] = kept.read_text().strip() if kept.is_file() else secrets.token_hex(4)
        if given.resume is None and given.resume_from is None and given.fork_from is None:
            found["resume"] = "allow"
        if "WANDB_DIR" not in os.environ:
            found["dir"] = str(config.folder)
        return found

    def row(self, numbers: Mapping[str, float], images: int, made: int) -> None:
        """Write numbers by their panels, except rows that the run has already (made again after a kill)."""
        if made >= self._first:
            self._run.log(dict(numbers), step=made)

    def sheet(self, sheet: Image.Image, images: int, made: int) -> None:
        """Write a sample sheet."""
        import wandb

        if made >= self._first:
            self._run.log({"samples": wandb.Image(sheet), "kimg": images / 1000}, step=made)

    def evaluations(self, summary: Mapping[str, Mapping[str, Any]]) -> None:
        """Write evaluations with their protocol, such as the last and the best one, into the run's summary."""
        self._run.summary.update({f"evaluation/{name}": dict(row) for name, row in summary.items()})

    def weights(self, file: Path, images: int) -> None:
        """Upload the best weights so far, ``.best_NAME.*``, as the next version of one artifact."""
        import wandb

        name = file.name.removeprefix(".best_").split(".")[0]
        text = "Chosen by the run's own evaluations, whose numbers flatter it: measure it again with other seeds."
        artifact = wandb.Artifact(f"{self._run.id}-{name}", "model", text, metadata={"kimg": images / 1000})
        artifact.add_file(str(file), name=f"{name}.safetensors")  # makes a copy
        self._run.log_artifact(artifact, aliases=["best", f"{images / 1000:g}kimg"])

    def roll_back(self, images: int) -> None:
        """Continue from an earlier position, after a rollback; wandb keeps the later rows."""

    def finish(self) -> None:
        """End the run."""
        self._run.finish()


def why_no_answer(address: str, seconds: float) -> str | None:
    """Return why a server did not answer within this many seconds; None if it answered, even with a refusal."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urlopen(address, timeout=max(1.0, deadline - time.monotonic())).close()
            return None
        except (HTTPError, HTTPException):
            return None
        except OSError as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, ssl.SSLError):  # wandb may know of other certificates
                return None
        if time.monotonic() + 1 > deadline:
            return one_line(reason) if isinstance(reason, Exception) else str(reason)
        time.sleep(1)
