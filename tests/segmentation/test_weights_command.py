"""Check the commands that take no data: what they print, what they write, and what they say to bad usage."""

from pathlib import Path

import pytest
from support.segmenters import miniature_config, official_segmenter, trainers_file

from hamgan.config import save_config
from hamgan.errors import ConfigError
from hamgan.segmentation import load_segmenter
from hamgan.segmentation.command import main


def test_cost_prints_the_published_and_our_own_count(capsys: pytest.CaptureFixture[str]) -> None:
    main(["cost", "--config", "light_ham_van_tiny_d256_ade20k"])
    printed = capsys.readouterr().out
    assert "4,208,630  (encoder 3,848,800, head 359,830)" in printed
    assert "published          6.468 G" in printed
    main(["cost", "--config", "mosaic", "--data.num_classes", "12", "--size", "64x128"])
    assert "one image of 64x128" in capsys.readouterr().out


def test_convert_writes_a_file_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trainers_file(tmp_path / "iter_160000.pth", official_segmenter())
    save_config(miniature_config(), tmp_path / "mini.yaml")
    output = tmp_path / "segmenter.safetensors"
    main(["convert", str(source), "--output", str(output), "--config", str(tmp_path / "mini.yaml")])
    printed = capsys.readouterr().out
    assert f"{len(official_segmenter())} tensors loaded" in printed
    assert f"hamgan segment evaluate --checkpoint {output}" in printed
    assert load_segmenter(output).network.classes == 7
    with pytest.raises(ConfigError, match="exists already"):
        main(["convert", str(source), "--output", str(output)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost"], "--config is missing"),
        (["cost", "--config", "land"], r"name --data\.num_classes"),
        (["cost", "--config", "mosaic", "--data.num_classes", "5", "--size", "big"], "--size big is no image size"),
        (["convert", "a.pth", "--output", "b", "--set", "seed=1"], "--set changes a configuration"),
        (["convert", "a.pth", "--output", "b"], "there is no file a.pth"),
        (["export", "--checkpoint", "runs/none", "--output", "a.pt"], r"written as \.onnx"),
        (["export", "--checkpoint", "runs/none"], "nothing to do: name --output"),
        (["export", "--checkpoint", "runs/none", "--output", "new", "--private"], "--private is for --push"),
        (["export", "--checkpoint", "runs/none", "--ouput", "a.onnx"], r"unknown option --ouput; did you mean"),
        (["cots"], r"did you mean `cost`"),
    ],
)
def test_bad_usage_is_a_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        main(arguments)
    assert type(caught.value).__module__ == "hamgan.errors"
