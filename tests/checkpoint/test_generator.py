"""Check that a generator file holds all that sampling needs, and that a wrong or damaged one is explained."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hamgan.checkpoint import (
    load_generator_file,
    save_generator,
)
from hamgan.checkpoint.tensors import read_tensors
from hamgan.config import Config, config_to_dict
from hamgan.errors import CheckpointError
from hamgan.networks import Generator, build_networks
from hamgan.networks.spectral_norm import SpectralWeight


@pytest.fixture(scope="module")
def generator_file(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    names = [f"class {index}" for index in range(15)]
    save_generator(path, build_networks(config)[0], config, class_names=names, kimg=1.5, extra={"fid": 20.0})
    return path


def test_a_generator_file_holds_all_that_sampling_needs(generator_file: Path, config: Config) -> None:
    network, stored, header = load_generator_file(generator_file)
    assert stored == config
    assert header == {"class_names": [f"class {index}" for index in range(15)], "kimg": 1.5, "fid": 20.0}
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert [item.name for item in generator_file.parent.iterdir()] == ["generator.safetensors"]


def test_a_loaded_generator_equals_one_built_directly_in_every_buffer(generator_file: Path, config: Config) -> None:
    """Check that no buffer keeps uninitialised memory: a loaded generator is built without memory, then filled."""
    loaded, direct = load_generator_file(generator_file)[0], build_networks(config)[0]
    buffers = dict(loaded.named_buffers())
    assert any(name.endswith("sigma") for name in buffers)
    for name, value in direct.named_buffers():
        assert torch.equal(buffers[name], value), name
    for (name, ours), theirs in zip(loaded.named_parameters(), direct.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.stride() == theirs.stride(), name


def rewrite(source: Path, target: Path, **changes: str | None) -> Path:
    tensors, metadata = read_tensors(source)
    metadata = {key: value for key, value in (metadata | changes).items() if value is not None}
    save_file(tensors, target, metadata)
    return target


def changed_config(config: Config, section: str, key: str, value: object) -> str:
    values = config_to_dict(config)
    (values[section] if section else values)[key] = value
    return json.dumps(values)


def test_headers_that_do_not_fit_are_sentences(generator_file: Path, config: Config, tmp_path: Path) -> None:
    cases: dict[str, dict[str, str | None]] = {
        "not a HamGAN generator": {"format": "other"},
        "header of .* is damaged: 'config'": {"config": None},
        "header of .* is damaged": {"config": "{"},
        "must hold keys and values": {"config": "[]"},
        "unknown key `seeds`": {"config": changed_config(config, "", "seeds", 1)},
        "resolution is 33": {"config": changed_config(config, "", "resolution", 33)},
        "no data.num_classes": {"config": changed_config(config, "data", "num_classes", None), "class_names": "null"},
        "not one per class": {"class_names": '["a"]'},
        "weights in .* do not fit": {"config": changed_config(config, "generator", "channels", 10**7)},
        "1 weights in .* do not fit": {
            "config": changed_config(config, "data", "num_classes", 16),
            "class_names": "null",
        },
    }
    for number, (message, changes) in enumerate(cases.items()):
        path = rewrite(generator_file, tmp_path / f"{number}.safetensors", **changes)
        with pytest.raises(CheckpointError, match=message):
            load_generator_file(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_generator_files_are_read_or_explained(
    generator_file: Path, tmp_path: Path, data: st.DataObject
) -> None:
    original = generator_file.read_bytes()
    # Most of a file is weights, where any byte is as good as another; damage the header more often.
    start = data.draw(st.one_of(st.integers(0, 9), st.integers(0, 9000), st.integers(0, len(original))))
    cut = data.draw(st.one_of(st.integers(0, 4), st.integers(0, len(original))))
    insert = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"9", b'"', b"\\", b"}", b"F16", b"null"])))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(original[:start] + insert + original[start + cut :])
    try:
        network, config, _ = load_generator_file(path)
    except CheckpointError as error:
        assert path.name in str(error) or "damaged" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert isinstance(network, Generator)
    assert network.num_classes == config.data.num_classes
    assert all(
        isinstance(module.config.enabled, bool) for module in network.modules() if isinstance(module, SpectralWeight)
    )
