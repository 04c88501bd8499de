"""Check where networks are compiled, and that a run says so; tests/networks has the gradients."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from support.small_runs import forget_accelerator, run_small, small_config, start, write_config
from torch import nn
from torch.torch_version import TorchVersion

from hamgan.errors import ConfigError
from hamgan.training import compilation
from hamgan.training.compilation import describe_compilation, is_compiled

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the GPU of this machine, whether it has one or not, is an A100."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(compilation, "find_spec", lambda name: object())


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_accelerator()
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    forget_accelerator()


@pytest.mark.usefixtures("_gpu")
def test_auto_compiles_on_gpus_and_on_no_cpu(tmp_path: Path) -> None:
    train = small_config(tmp_path, "train.compile=auto").train
    assert is_compiled(train, GPU)
    assert not is_compiled(train, CPU)
    assert describe_compilation(train, CPU) == "nothing, as auto compiles on GPUs only"
    assert "G and D" in describe_compilation(train, GPU)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("version", ["2.16.0+cu140", "3.0.0"])
def test_a_torch_whose_compiled_gradients_nobody_compared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    train = small_config(tmp_path, "train.compile=auto").train
    assert not is_compiled(train, GPU)
    assert version in describe_compilation(train, GPU)
    with pytest.raises(ConfigError, match=r"true is not possible .* torch 2\.8 to 2\.15, and this is"):
        run_small(tmp_path, "train.compile=true")
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_is_compiled_and_how_long_that_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_module = nn.Module.compile
    # Eager kernels, for this is not about speed.
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compile_module(module, backend="eager"))
    run_small(tmp_path, "train.compile=true", "train.r1_gamma=1", "train.total_kimg=0.016")
    text = capsys.readouterr().err
    assert "compiled  G, in the first step" in text
    assert text.count("compiled  the first step took 0:0") == 1


def test_a_failure_of_the_compiler_is_a_sentence_that_names_the_way_around(tmp_path: Path) -> None:
    config, log = write_config(tmp_path), tmp_path / "log.txt"
    options = ("--run_dir", tmp_path / "run", "--train.compile=true")
    variables = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    process = start(ROOT / "scripts/train.py", "--config", config, *options, log=log, **variables)
    assert process.wait(240) == 2
    text = log.read_text()
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith(f"error: torch.compile of torch {torch.__version__} failed: ")
    assert text.endswith("; train without it: --train.compile false\n")
