"""Check that `accelerate launch` is obeyed or refused with a sentence, with files as `accelerate config` writes."""

from pathlib import Path

import pytest
import yaml
from support.paths import ROOT
from support.small_runs import python, write_config

from hamgan.distributed.launcher import check_launcher, launched_precision
from hamgan.errors import BAD_USAGE, ConfigError

# As `accelerate config` writes it, apart from what the tests change.
WRITTEN = {
    "compute_environment": "LOCAL_MACHINE",
    "debug": False,
    "distributed_type": "MULTI_CPU",
    "downcast_bf16": "no",
    "enable_cpu_affinity": False,
    "machine_rank": 0,
    "main_training_function": "main",
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 1,
    "rdzv_backend": "static",
    "same_network": True,
    "use_cpu": True,
}
FSDP = {"fsdp_version": 1, "fsdp_sharding_strategy": "FULL_SHARD", "fsdp_auto_wrap_policy": "NO_WRAP"}


def launch(folder: Path, *options: str, **changes: object) -> tuple[int, str]:
    """Train one step as `accelerate launch` starts it; return exit code and output."""
    file = folder / "default_config.yaml"
    file.write_text(yaml.safe_dump(WRITTEN | changes))
    train: list[str | Path] = [ROOT / "scripts/train.py", "--config", write_config(folder), "--run_dir", folder / "run"]
    done = python(
        "-m", "accelerate.commands.launch", "--config_file", file, *train, "--train.total_kimg", "0.008", *options
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "made"), [("no", "fp32"), ("bf16", "bf16")])
def test_the_precision_of_accelerate_s_file_is_taken_where_it_is_left_open(
    tmp_path: Path, asked: str, made: str
) -> None:
    code, text = launch(tmp_path, "--train.precision", "auto", mixed_precision=asked)
    assert code == 0, text
    assert f"device    cpu, {made}, " in text


@pytest.mark.slow
def test_fsdp_is_refused_with_a_sentence(tmp_path: Path) -> None:
    code, text = launch(tmp_path, distributed_type="FSDP", fsdp_config=FSDP, use_cpu=False)
    assert code != 0
    assert "error: Accelerate is configured for FSDP (ACCELERATE_USE_FSDP=true), but G and D train under DDP" in text
    assert "hamgan/" not in text.split("error: ")[0]  # no traceback of ours; the launcher adds one of its own
    assert not (tmp_path / "run").exists()


def test_a_command_that_does_not_train_refuses_deepspeed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    done = python("-m", "hamgan", "sample", "--checkpoint", tmp_path, "--output", tmp_path / "grid.png")
    assert done.returncode == BAD_USAGE
    assert done.stderr.startswith("error: Accelerate is configured for DeepSpeed")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("USE_MEGATRON_LM", "true", r"Megatron-LM .* G and D train under DDP"),
        ("USE_PARALLELISM_CONFIG", "true", r"a parallelism config .* G and D train under DDP"),
        ("DYNAMO_BACKEND", "INDUCTOR", r"--train\.compile true"),
        ("GRADIENT_ACCUMULATION_STEPS", "4", r"--train\.accumulation 4"),
    ],
)
def test_what_the_launcher_cannot_have_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    check_launcher()
    monkeypatch.setenv(f"ACCELERATE_{variable}", value)
    with pytest.raises(ConfigError, match=sentence):
        check_launcher()


def test_a_precision_that_contradicts_the_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert launched_precision("bf16") is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # also what nobody has chosen
    assert launched_precision("bf16") == "fp32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert launched_precision("auto") == launched_precision("fp16") == "fp16"
    with pytest.raises(ConfigError, match=r"train\.precision is fp32, but .* asks for fp16"):
        launched_precision("fp32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ConfigError, match="allowed: no, bf16 and fp16"):
        launched_precision("auto")
