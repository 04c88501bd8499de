"""Test ``python -m benchmarks train``: forms, profile, FLOPs and the length of a run."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import forget_accelerator, small_config, write_config

from benchmarks.command import main
from benchmarks.profiling import kind_of, normalised_layers, profile_kinds, run_unnormalised
from benchmarks.steps import make_workload
from hamgan.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::convolution_backward", "convolution"),
        ("aten::mkldnn_convolution", "convolution"),
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolution"),
        ("aten::addmm", "matrix product"),
        ("nvjet_hsh_128x128_gemm", "matrix product"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("aten::_fused_adam_", "optimiser, average"),
        ("triton_poi_fused_relu_3", "fused elementwise"),
        ("graph_0_cpp_fused_relu_1", "fused elementwise"),
        ("aten::copy_", "copies"),
        ("aten::upsample_nearest2d", "resampling"),
        ("aten::clamp_min", "other"),
    ],
)
def test_operators_and_kernels_have_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_profile_finds_the_products() -> None:
    x = torch.ones(400, 400)
    seconds = profile_kinds(lambda: x @ x, torch.device("cpu"))
    assert seconds["matrix product"] == max(seconds.values())


def test_a_step_without_normalisation_leaves_the_networks_normalised(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.num_classes=5")
    forget_accelerator()
    workload = make_workload(config, "fast", 4, Accelerator(cpu=True))
    layers = normalised_layers(workload)
    assert layers
    vectors, weights = ([getattr(layer, name).clone() for layer in layers] for name in ("vector", "weight"))
    same = lambda name, values: [torch.equal(getattr(layer, name), v) for layer, v in zip(layers, values, strict=True)]  # noqa: E731
    run_unnormalised(workload, layers)
    assert not any(layer.folded for layer in layers)
    assert all(same("vector", vectors))
    assert not all(same("weight", weights))  # it was a step
    workload()
    assert not any(same("vector", vectors))
    forget_accelerator()


def test_the_report_compares_the_forms_and_tells_the_length_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file = write_config(tmp_path), tmp_path / "train.json"
    forget_accelerator()
    main(
        f"train --config {config} --set train.total_kimg=7.2 generator.channels=4 --batches 2,4 --rounds 2 "
        f"--threads 1 --device cpu --json {file}".split()
    )
    forget_accelerator()
    printed = capsys.readouterr().out
    assert "Batch 4: the fast form takes" in printed
    assert "Batch 2: spectral normalisation is" in printed
    assert "the 7,200 images of hamgan take" in printed
    figures = json.loads(file.read_text())["figures"]
    assert figures["4"]["spectral norm"]["median"]["whole step without spectral norm"] > 0
    flops = figures["4"]["flops"]
    # Merged up- and down-sampling takes 4/9 of the multiplications of most convolutions.
    assert 0.4 < flops["fast"] / flops["plain"] < 0.9
    assert figures["4"]["peak_bytes"]["fast"] < figures["4"]["peak_bytes"]["plain"]
    assert set(figures["2"]["profile"]) == {"fast", "plain"}
    assert len(figures["2"]["timings"]["seconds"]["plain"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--forms fast,quick", "--forms has 'quick'; allowed: fast, plain, compiled"),
        ("--batches 0", "--batches: '0' is not a whole number of 1 or more"),
        ("--batches 8,x", "--batches: 'x' is not a whole number"),
        ("--btches 8", "unrecognized arguments: --btches"),
        ("--set generator.chanels=4", "unknown key `generator.chanels`"),
        ("--config missing.yaml", "no configuration file at missing.yaml"),
    ],
)
def test_bad_usage_is_a_sentence(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["train", *arguments.split()])
