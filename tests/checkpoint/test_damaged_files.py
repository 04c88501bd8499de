"""Check that files damaged at random are read or refused with a sentence, and that no code in them ever runs.

Configurations and generator files are damaged in test_config.py and test_generator.py.
"""

import functools
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.photo_crops import crop_photographs, save_store
from support.small_runs import VALUES, forget_accelerator, small_config

from hamgan.checkpoint import Progress, load_checkpoint, save_checkpoint
from hamgan.config import Config, load_config
from hamgan.convert.files import convert_file, read_weights
from hamgan.data import open_source
from hamgan.errors import CheckpointError, ConfigError
from hamgan.evaluation import FeatureStatistics, load_reference, save_reference
from hamgan.evaluation.inputs.images import ArrayImages
from hamgan.files import write_atomically
from hamgan.networks import build_networks
from hamgan.sampling import load_generator
from hamgan.tracking.run_log import keep_rows_until
from hamgan.training.step import GanStep

SENTENCES = (ConfigError, CheckpointError)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
PIECES = [
    b"9",
    b"-",
    b'"',
    b"\\",
    b"{",
    b"[",
    b"}",
    b"null",
    b"NaN",
    b"1e999",
    b"\xff",
    b"\0",
    b"[" * 5000,
    b"!!python/x",
]


class Cut(NamedTuple):
    """Replace some bytes of a file by others."""

    start: int
    length: int
    insert: bytes

    def of(self, original: bytes) -> bytes:
        """Return the damaged content."""
        return original[: self.start] + self.insert + original[self.start + self.length :]


class Instead(NamedTuple):
    """Replace a file by other JSON."""

    value: Any

    def of(self, _original: bytes) -> bytes:
        """Return the damaged content."""
        return json.dumps(self.value).encode()


def damage(original: bytes) -> st.SearchStrategy[Cut]:
    """Draw a cut, mostly near the start of the file, where the header is."""
    starts = st.one_of(st.integers(0, min(200, len(original))), st.integers(0, len(original)))
    lengths = st.one_of(st.integers(0, 4), st.integers(0, len(original)))
    return st.builds(Cut, starts, lengths, st.one_of(st.binary(max_size=8), st.sampled_from(PIECES)))


def json_damage(original: bytes) -> st.SearchStrategy[Cut | Instead]:
    """Draw a cut in the bytes of a JSON file, or the file with a value replaced or left out."""
    return st.one_of(damage(original), other_json(json.loads(original)).map(Instead))


@st.composite
def other_json(draw: Any, original: Any) -> Any:
    """Draw the value with one of its parts replaced or left out."""
    if isinstance(original, dict) and original and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(original)))
        rest = {name: value for name, value in original.items() if name != key}
        return rest if draw(st.integers(0, 3)) == 0 else rest | {key: draw(other_json(original[key]))}
    return draw(st.sampled_from([None, -1, 0, 10**30, 0.5, "x", [], [1], {}, {"x": 1}, True]))


def read_or_refuse(path: Path, content: bytes, read: Callable[[], Any]) -> None:
    """Check that this content is read or refused with a sentence, and that no new file lies beside it."""
    path.write_bytes(content)
    before = sorted(path.parent.rglob("*"))
    try:
        read()
    except SENTENCES as error:
        assert len(str(error)) > 20  # noqa: PT017 - either outcome is right
        assert "Error(" not in str(error)  # noqa: PT017
    assert sorted(path.parent.rglob("*")) == before


class Touch:
    """Make a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Config, GanStep]]:
    """Save a checkpoint in a run folder without a generator file, so that sampling reads the checkpoint."""
    forget_accelerator()
    config = small_config(tmp_path_factory.mktemp("damaged"), "data.num_classes=12")
    step = GanStep(*build_networks(config), config.train, Accelerator(cpu=True, mixed_precision="no"))
    path = save_checkpoint(config.folder / "checkpoints", step, Progress(16, 2, 1.5, fid={"00000000.008": 30.0}))
    write_atomically(config.folder / "config.yaml", yaml.safe_dump(VALUES | {"data": {"num_classes": 12}}))
    write_atomically(config.folder / "classes.json", json.dumps([str(index) for index in range(12)]))
    yield path, config, step
    forget_accelerator()


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "../../classes.json"])
def test_checkpoints(checkpoint: tuple[Path, Config, GanStep], name: str, data: st.DataObject) -> None:
    """Check that every change is noticed, since both files of a checkpoint have checksums."""
    path, config, step = checkpoint
    file = (path / name).resolve()
    original = file.read_bytes()
    content = data.draw((json_damage if file.suffix == ".json" else damage)(original)).of(original)
    try:
        read_or_refuse(file, content, lambda: load_generator(config.folder, device="cpu"))
        if "state" in name and _different(file, content, original):
            with pytest.raises(CheckpointError):
                load_checkpoint(path, step)
    finally:
        file.write_bytes(original)


def _different(file: Path, content: bytes, original: bytes) -> bool:
    """Return whether the content has changed, apart from how JSON is written."""
    try:
        return content != original and (file.suffix != ".json" or json.loads(content) != json.loads(original))
    except (ValueError, RecursionError):
        return True


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small prepared store."""
    return save_store(crop_photographs(0, 2), tmp_path_factory.mktemp("store"))


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("name", ["manifest.json", "train/labels.npy", "train/images.npy"])
def test_stores(store: Path, name: str, data: st.DataObject) -> None:
    file = store / name
    original = file.read_bytes()
    content = data.draw((json_damage if file.suffix == ".json" else damage)(original)).of(original)

    def read() -> None:
        source = open_source(str(store), "train", 32)
        assert source.read(np.arange(len(source))).shape == (len(source), 32, 32, 3)
        assert set(source.labels) <= set(range(len(source.class_names)))

    try:
        read_or_refuse(file, content, read)
    finally:
        file.write_bytes(original)


def arrays(suffix: str) -> bytes:
    """Return the content of a small file of named arrays."""
    values: dict[str, Any] = {"mu": np.zeros(3), "sigma": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3), np.uint8)}
    values |= {"blocks.0.0.conv1.weight": np.ones((2, 2))}
    file = io.BytesIO()
    if suffix == ".npz":
        np.savez(file, **values)
    else:
        torch.save({name: torch.from_numpy(value) for name, value in values.items()}, file)
    return file.getvalue()


@QUICK
@given(data=st.data())
@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_weights_references_and_images_of_others(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("arrays") / f"file{suffix}"
    original = arrays(suffix)
    content = data.draw(damage(original)).of(original)
    readers: list[Callable[[Path], Any]] = [read_weights, convert_file]
    readers += [load_reference, ArrayImages] if suffix == ".npz" else []
    for reader in readers:
        read_or_refuse(path, content, functools.partial(reader, path))


@QUICK
@given(data=st.data())
def test_references(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    mean, covariance = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    save_reference(FeatureStatistics(5, mean, covariance, {"extractor": "none"}), path)
    original = path.read_bytes()
    read_or_refuse(path, data.draw(damage(original)).of(original), lambda: load_reference(path))
    header = {"format": "hamgan-reference-1", "count": "5", "description": "{}", "class_names": "null"}
    header |= {"inception_score": "null"}
    header |= data.draw(st.dictionaries(st.sampled_from(sorted(header)), st.sampled_from(["", "[", "3", '"x"', "{}"])))
    tensors = {"mean": mean, "covariance": covariance}
    tensors.pop(data.draw(st.sampled_from(["mean", "covariance", "none"])), None)
    save_file(tensors, path, header)
    read_or_refuse(path, path.read_bytes(), lambda: load_reference(path))


@QUICK
@given(data=st.data())
def test_rows_of_a_run(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Check that a run resumes whatever a crash has made of metrics.jsonl."""
    path = tmp_path_factory.mktemp("rows") / "metrics.jsonl"
    good = b'{"kimg": 0.008}\n{"kimg": 0.016}\n'
    path.write_bytes(data.draw(damage(good)).of(good))
    keep_rows_until(path, 10)
    for line in path.read_text().splitlines():
        kimg = json.loads(line)["kimg"]
        assert kimg is None or kimg <= 0.0105


def test_no_file_runs_code(tmp_path: Path, store: Path) -> None:
    """Hide a pickle that makes a folder in every place where a file could hold one."""
    trace = tmp_path / "it ran"
    bait = pickle.dumps(Touch(trace))
    objects = np.empty(1, object)
    objects[0] = Touch(trace)
    for suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz"):
        path = tmp_path / f"weights{suffix}"
        for content in (bait, _archive(bait), _torch(Touch(trace)), _npz(objects)):
            path.write_bytes(content)
            readers: list[Callable[[Path], Any]] = [read_weights]
            readers += [load_reference, ArrayImages] if suffix == ".npz" else []
            for reader in readers:
                with pytest.raises(SENTENCES):
                    reader(path)
    for name in ("labels.npy", "images.npy"):
        original = (store / "train" / name).read_bytes()
        np.save(store / "train" / name, objects, allow_pickle=True)
        with pytest.raises(ConfigError, match="damaged"):
            open_source(str(store), "train", 32)
        (store / "train" / name).write_bytes(original)
    path = tmp_path / "config.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    assert not trace.exists()
    pickle.loads(bait)
    assert trace.exists(), "the bait is none"


def _archive(bait: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("archive/data.pkl", "mu.npy", "sigma.npy", "arr_0.npy"):
            archive.writestr(name, bait)
        archive.writestr("archive/version", "3")
    return file.getvalue()


def _torch(value: object) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": value}, file)
    return file.getvalue()


def _npz(objects: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, mu=objects, sigma=objects, arr_0=objects)
    return file.getvalue()
