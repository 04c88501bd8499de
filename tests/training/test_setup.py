"""Test the set-up from a configuration: batches that divide, classes, intervals, learning rates, precision."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.prepared import encoded
from support.small_runs import forget_accelerator, run_small, small_config

from hamgan.config import load_config
from hamgan.data import open_source
from hamgan.errors import ConfigError
from hamgan.training import setup
from hamgan.training.setup import choose_threads, crosses, keep_class_order, make_accelerator, micro_batch

pytestmark = pytest.mark.usefixtures("new_accelerator")


@pytest.mark.parametrize(
    ("overrides", "processes", "message"),
    [
        (["train.batch_size=8"], 3, r"batch_size 8 does not divide by 3 process\(es\) x 1 .*; take 6 or 9"),
        (["train.batch_size=8", "train.accumulation=2"], 8, r"by 8 process\(es\) x 2 .*; take 16$"),
        (["train.batch_size=6", "train.mode_seeking=1"], 2, r"pairs.*batch_size 6 gives 3 images.* take 4 or 8"),
    ],
)
def test_a_batch_that_does_not_divide_names_those_that_do(
    tmp_path: Path, overrides: list[str], processes: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        micro_batch(small_config(tmp_path, *overrides), processes)


def test_a_resumed_run_keeps_its_order_of_classes(tmp_path: Path) -> None:
    for name in range(12):
        (tmp_path / "data" / str(name)).mkdir(parents=True)
        (tmp_path / "data" / str(name) / "0.jpg").write_bytes(encoded("cat", name))
    source = open_source(str(tmp_path / "data"), "train", 32)
    images = dict(zip(source.class_names, source.read(np.arange(12)), strict=True))
    (tmp_path / "run").mkdir()
    earlier = sorted(str(name) for name in range(12))  # 0, 1, 10, 11, 2, ...
    (tmp_path / "run/classes.json").write_text(json.dumps(earlier))
    keep_class_order(source, tmp_path / "run")
    assert source.class_names == earlier
    for name, image in zip((earlier[label] for label in source.labels), source.read(np.arange(12)), strict=True):
        np.testing.assert_array_equal(image, images[name])
    (tmp_path / "run/classes.json").write_text(json.dumps([*earlier[:-1], "cat"]))
    with pytest.raises(ConfigError, match=r"was trained on other classes than .*: 12 and 12, `9`, `cat` only in one"):
        keep_class_order(source, tmp_path / "run")


def test_another_number_of_classes_than_the_data_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_classes is 9, but photos has 12 classes; .*: --data\.num_classes 12"):
        run_small(tmp_path, "data.num_classes=9")
    assert not (tmp_path / "run").exists()


def test_intervals_are_passed_once_per_multiple_whatever_the_rounding() -> None:
    for kimg in (0.007, 0.057, 0.1, 1.005, 2.01):
        images = round(kimg * 1000)
        passed = [after for after in range(1, 3 * images + 1) if crosses(after - 1, after, kimg)]
        assert passed == [images, 2 * images, 3 * images]
    assert crosses(990, 1100, 0.5)
    assert not crosses(0, 10**9, 0)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="with an accelerator its own bf16 decides")
@pytest.mark.parametrize(("amx", "expected"), [(True, "bf16"), (False, "no")])
def test_auto_takes_bf16_where_the_cpu_has_matrix_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amx: bool, expected: str
) -> None:
    flags = {"avx512_bf16", "amx_bf16"} if amx else {"avx512_bf16"}
    monkeypatch.setattr(setup, "processor_flags", lambda: flags)
    assert make_accelerator(small_config(tmp_path, "train.precision=auto")).mixed_precision == expected
    forget_accelerator()
    assert make_accelerator(small_config(tmp_path, "train.precision=fp32")).mixed_precision == "no"


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True)])
def test_emulated_bf16_is_none(monkeypatch: pytest.MonkeyPatch, major: int, expected: bool) -> None:
    """Describe a T4 (7.5) and an A100 (8.0) to torch, which says that both support bf16."""
    monkeypatch.setattr(torch.version, "hip", None)
    described: dict[str, object] = {"is_available": True, "current_device": 0, "_check_bf16_tensor_supported": True}
    described["get_device_properties"] = SimpleNamespace(major=major)
    for name, answer in described.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    assert torch.cuda.is_bf16_supported()
    assert setup.has_fast_bf16() == expected


@pytest.mark.skipif(torch.accelerator.is_available(), reason="threads are chosen for CPUs")
def test_small_networks_take_one_thread_and_others_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert choose_threads(load_config("photos"), 1) == 1
    assert choose_threads(load_config("photos", ["generator.channels=16", "discriminator.channels=32"]), 1) == 6
    assert choose_threads(load_config("photos", ["train.batch_size=64"]), 1) == 6
    assert choose_threads(load_config("photos", ["train.batch_size=64"]), 4) == 1
    assert choose_threads(load_config("photos128"), 1) == 6
    assert choose_threads(load_config("photos", ["train.threads=3"]), 1) == 3


def test_the_first_lines_say_how_many_threads_were_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    forget_accelerator()
    run_small(tmp_path, "train.total_kimg=0.008", "train.threads=null")
    assert "device    cpu, fp32, TF32 off, 1 of 2 cores" in capsys.readouterr().err
