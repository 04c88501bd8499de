"""Test `load_generator` and its result as users call them: the docstrings' examples, types, devices, mistakes."""

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import run_small

import hamgan
from hamgan.checkpoint import record_evaluations
from hamgan.checkpoint.tensors import read_tensors
from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.sampling import LoadedGenerator, load_generator
from hamgan.sharing import save_pretrained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.016")


@pytest.fixture(scope="module")
def generator(run: Path) -> LoadedGenerator:
    return load_generator(run, device="cpu")


@pytest.mark.parametrize("documented", [load_generator, LoadedGenerator, save_pretrained])
def test_the_examples_in_docstrings_hold(run: Path, tmp_path: Path, documented: Any) -> None:
    names: dict[str, Any] = {"run": run, "folder": tmp_path / "shared"}
    names |= {"hamgan": hamgan, "load_generator": load_generator}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    examples = doctest.DocTestFinder().find(documented, "hamgan", globs=names)
    for example in examples:
        assert runner.run(example).failed == 0
    assert runner.tries >= 2


@pytest.mark.parametrize(
    ("dtype", "mean", "largest"),
    [(torch.float32, 0, 0), (torch.float64, 1e-3, 1), (torch.bfloat16, 1.0, 40), (torch.float16, 0.3, 20)],
)
def test_every_type_draws_the_same_pictures(
    run: Path, generator: LoadedGenerator, dtype: torch.dtype, mean: float, largest: int
) -> None:
    found = load_generator(run, torch.device("cpu"), dtype)
    assert next(found.network.parameters()).dtype == dtype
    pictures = [item(range(12), range(12), output="tensor").int() for item in (found, generator)]
    difference = (pictures[0] - pictures[1]).abs()
    assert float(difference.float().mean()) <= mean
    assert int(difference.max()) <= largest


def test_weights_are_folded_before_they_are_rounded(run: Path, generator: LoadedGenerator) -> None:
    exact, half = generator.network.state_dict(), load_generator(run, "cpu", torch.bfloat16).network.state_dict()
    assert exact.keys() == half.keys()
    assert all(torch.equal(value.bfloat16(), half[name]) for name, value in exact.items())


def test_one_seed_and_one_class_need_no_list(generator: LoadedGenerator) -> None:
    expected = generator([3], ["cat"], output="tensor")
    assert torch.equal(generator(3, "cat", output="tensor"), expected)
    array: Any = np.array([3])
    assert torch.equal(generator(array, 2, output="tensor"), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [0, -1]}, "seed -1: give whole numbers from 0"),
        ({"seeds": [1.5]}, r"seed 1\.5: give whole numbers from 0"),
        ({"seeds": ["a"]}, "seed 'a': give whole numbers from 0"),
        ({"seeds": [2**32]}, "seed 4294967296: give whole numbers from 0 to 4294967295"),
        ({"output": "PIL"}, "output is 'PIL'; allowed: pil, tensor"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"classes": "coffe cup"}, "no class is called 'coffe cup'; nearest: coffee"),
        ({"truncation": 0}, "truncation is 0; it must be above 0"),
    ],
)
def test_slips_are_sentences(generator: LoadedGenerator, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generator(**({"seeds": [0], "classes": [0]} | arguments))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, "float16"])
def test_types_that_draw_nothing_are_refused(run: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match=r"dtype is .*; allowed: torch.float32, torch.bfloat16"):
        load_generator(run, "cpu", dtype)


def test_what_is_measured_after_a_run_is_written_into_its_file(run: Path) -> None:
    """Record evaluations after a run, as the demo does at its end."""
    before, _ = read_tensors(run / "generator.safetensors")
    row = {"kimg": 0.016, "ema": True, "batch_norm": "ema", "fid": 5.0, "protocol": "8 samples"}
    (run / "results.jsonl").write_text(json.dumps(row) + "\n")
    record_evaluations(load_config(run / "config.yaml"))
    after, header = read_tensors(run / "generator.safetensors")
    assert json.loads(header["evaluations"]) == [row]
    assert (json.loads(header["kimg"]), json.loads(header["class_names"])[2]) == (0.016, "cat")
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
