"""Writing checkpoints in a background thread, so that training waits for a copy in memory and not for the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hamgan.checkpoint.evaluations import evaluations_of_run
from hamgan.checkpoint.generator import write_generator
from hamgan.checkpoint.rotation import rotate
from hamgan.checkpoint.state import Snapshot
from hamgan.config import Config
from hamgan.errors import CheckpointError


class CheckpointWriter:
    """Writes one snapshot at a time to ``RUN/checkpoints``, rotates them and renews ``RUN/generator.safetensors``."""

    def __init__(self, folder: Path, config: Config, class_names: list[str], images_per_step: int) -> None:
        self.folder, self.config = folder, config
        self.class_names, self.images_per_step = class_names, images_per_step
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def submit(self, snapshot: Snapshot) -> None:
        """Start to write; waits for the snapshot before. Raises CheckpointError when that one could not be written."""
        self.wait()
        self._writing = self._thread.submit(self._write, snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        snapshot.write(self.folder / "checkpoints")
        progress = snapshot.state["progress"]
        try:
            rotate(
                self.folder / "checkpoints",
                self.config.checkpoint,
                progress["fid"],
                self.images_per_step,
                newest=snapshot.name,
            )
        except OSError as error:
            raise CheckpointError(f"could not delete old checkpoints: {error}") from error
        kimg = progress["images"] / 1000
        write_generator(
            self.folder / "generator.safetensors",
            snapshot.generator_tensors(),
            self.config,
            class_names=self.class_names,
            kimg=kimg,
            extra={"evaluations": evaluations_of_run(self.config, kimg)},
        )

    @property
    def failed(self) -> bool:
        """Whether what was submitted last has turned out not to be writable; never waits."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def wait(self) -> None:
        """Return when all is on disk; raises CheckpointError when it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """End the thread, after what it is writing."""
        self._thread.shutdown()
