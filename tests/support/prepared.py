"""Write small photographs to disk and run the real preparation command."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from support.paths import ROOT

from hamgan.data.photos import photo_folder
from hamgan.data.preparation.command import main

Wanted = dict[str, list[bytes]]
CLASSES = {"cat": "chelsea.png", "cup": "coffee.png", "rocket": "rocket.jpg"}


def encoded(name: str, number: int, kind: str = "JPEG") -> bytes:
    """Encode a crop of a photograph, a different one for every number."""
    with Image.open(photo_folder() / CLASSES[name]) as image:
        x, y = 7 * number % 200, 3 * number % 100
        file = io.BytesIO()
        image.convert("RGB").crop((x, y, x + 80, y + 60)).save(file, kind)
    return file.getvalue()


def write_classes(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write root/CLASS/0000.jpg ... for every class."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            (root / name / f"{number:04d}.jpg").write_bytes(encoded(name, number))
    return root


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def command(*arguments: object) -> list[str]:
    """Return the words of a command that runs `hamgan prepare` of this checkout."""
    return [sys.executable, str(ROOT / "scripts/prepare_data.py"), *map(str, arguments)]


def run_command(*arguments: object, code: int = 0, **environment: str) -> str:
    """Run `hamgan prepare`, check its exit code, and return stdout and stderr together."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output, output
    return output


def kill_when(condition: Callable[[], bool], *arguments: object, number: int = signal.SIGKILL) -> int:
    """Start the command, send it a signal as soon as the condition holds, and return its exit code."""
    # A shell starts jobs in the background with SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait(120)


def call_command(*arguments: object) -> None:
    """Run `hamgan prepare` inside this process, where starting costs nothing."""
    main([str(argument) for argument in arguments])


def contents(store: Path) -> dict[str, bytes]:
    """Read every file of a store by its relative path."""
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}


def images_of(store: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Read the images and labels of a store as NumPy arrays."""
    return np.load(store / split / "images.npy"), np.load(store / split / "labels.npy")


def write_shards(root: Path) -> Wanted:
    """Write two WebDataset shards with the same names inside, their classes in .cls and in .json files."""
    wanted: Wanted = {f"{number:05d}": [] for number in range(len(CLASSES))}
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard:03d}.tar", "w") as archive:
            for row in range(7):
                label = row % len(CLASSES)
                data = encoded(list(CLASSES)[label], 10 * shard + row)
                wanted[f"{label:05d}"].append(data)
                add_bytes(archive, f"{row:06d}.jpg", data)
                kind, text = ("json", json.dumps({"label": label})) if shard else ("cls", f"{label}\n")
                add_bytes(archive, f"{row:06d}.{kind}", text.encode())
    return wanted
