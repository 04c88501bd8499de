"""Check that numbers say what training saw, and that those a checkpoint was chosen by are measured again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evaluations import FID, OPTIONS, small_generator
from support.paths import ROOT
from support.photo_crops import crop_photographs, save_flat
from support.published_weights import take_for_published, write_random_weights
from support.small_runs import run_small

from hamgan.checkpoint import list_checkpoints, read_evaluations, was_chosen_by
from hamgan.checkpoint.choice import find_choice
from hamgan.checkpoint.progress import read_progress
from hamgan.evaluation import evaluate
from hamgan.evaluation.command import main
from hamgan.evaluation.contamination import notes_on_same_family, uses_in_training
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.evaluation.features.resizing import RESIZING
from hamgan.sampling import load_generator
from hamgan.sharing.card import model_card

SETTINGS = [
    "train.total_kimg=0.024",
    "checkpoint.keep_last=3",
    "eval.every_kimg=0.008",
    "eval.metrics=[fid]",
    "eval.num_samples=6",
    "eval.reference_samples=6",
    "eval.features=efficientnet-lite0",
]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with three evaluations, of which the second is the lowest; return its checkpoint."""
    run = run_small(tmp_path_factory.mktemp("chosen"), *SETTINGS)
    file = run / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1][FID] = 0.5 * min(row[FID] for row in rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list_checkpoints(run / "checkpoints")[1]


def test_only_the_lowest_of_several_was_chosen_and_never_the_last(chosen: Path) -> None:
    run = chosen.parents[1]
    for kimg, choice in ((0.008, False), (0.016, True), (0.024, False)):
        (row,) = read_evaluations(run, kimg, ema=True, batch_norm="ema")
        assert (row["chosen"] is not None, was_chosen_by(row)) == (choice, choice)
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert find_choice(rows[:2], 0.016) is None  # the last one so far: nothing was left aside
    assert find_choice([rows[1], rows[2] | {"seed": 1}], 0.016) is None  # of other samples: no comparison
    (row,) = load_generator(chosen, "cpu").evaluations
    assert row["chosen"] == {"by": FID, "network": "efficientnet-lite0", "among": 3, "samples": [0, 6]}
    assert row["protocol"].endswith(f"; checkpoint chosen among 3 for its {FID}")


def test_fids_of_another_protocol_are_not_compared_when_a_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resume with a tenth of the samples, whose FID is far higher: nothing has collapsed, and no checkpoint is lost."""
    options = [*SETTINGS, "monitor.fid_jump=1.01", "monitor.action=stop", "checkpoint.keep_last=1"]
    many, few = "eval.num_samples=40", "eval.num_samples=4"
    run = run_small(tmp_path, *options, many, "train.total_kimg=0.016", "checkpoint.keep_best=1", "monitor.fid_jump=9")
    best = read_progress(list_checkpoints(run / "checkpoints")[-1]).ranking[0]
    run_small(tmp_path, *options, few, "checkpoint.keep_best=2")
    checkpoints = {path.name: path for path in list_checkpoints(run / "checkpoints")}
    assert list(checkpoints) == [best, "00000000.024"]
    progress = read_progress(checkpoints["00000000.024"])
    assert (list(progress.fid), progress.superseded[0]) == (["00000000.024"], best)
    assert "the protocol of evaluations has changed" in capsys.readouterr().err


def test_a_chosen_checkpoint_is_measured_with_other_seeds_before_a_card_has_its_number(
    chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = model_card(load_generator(chosen, "cpu"), "me/mine")
    assert f"This is a checkpoint chosen among 3 for its {FID}. That number" in card
    assert "measure these weights with other seeds" in card
    assert "| FID" not in card
    assert "metric_type" not in card
    results = chosen.parents[1] / "results.jsonl"
    arguments = ["--checkpoint", str(chosen), "--device", "cpu", "--quiet", "--num-samples", "4", "--results"]
    main([*arguments, str(results)])
    printed = capsys.readouterr().out
    assert f"seed 2, for other samples than those of the choice: checkpoint chosen among 3 for its {FID}" in printed
    assert (
        "note: the choice of the checkpoint used efficientnet-lite0, of the same family (ImageNet classifiers)"
        in printed
    )
    row = json.loads(results.read_text().splitlines()[-1])
    assert (row["seed"], row["chosen"]["among"]) == (2, 3)
    assert "the choice of the checkpoint used efficientnet-lite0 (ImageNet-1k with labels)" in row["protocol"]
    generator = load_generator(chosen, "cpu")
    assert [was_chosen_by(row) for row in generator.evaluations] == [False, True]
    card = model_card(generator, "me/mine")
    assert f"| FID (efficientnet-lite0) | {row[FID]:.5g} |" in card
    assert "the figures below were measured with other seeds" in card
    main([*arguments, str(tmp_path / "own.jsonl"), "--seed", "0"])
    assert json.loads((tmp_path / "own.jsonl").read_text())["seed"] == 0


def test_every_protocol_says_what_its_network_and_training_saw(chosen: Path, tmp_path: Path) -> None:
    images = save_flat(crop_photographs(0, 1), tmp_path / "images")
    last = load_generator(chosen.parents[1], "cpu")
    rows: list[dict[str, Any]] = [
        evaluate(samples, images, ("fid",), num_samples=4, **OPTIONS) for samples in (last, images)
    ]
    assert all(
        "efficientnet-lite0 fp32, bilinear, antialiased to 224, trained on ImageNet" in row["protocol"] for row in rows
    )
    assert "training used no pretrained network" in rows[0]["protocol"]
    assert (rows[0]["training_saw"], rows[1]["training_saw"]) == ([], None)
    assert "what made the samples saw is not known" in rows[1]["protocol"]


def test_a_number_of_another_family_stands_beside_fid_or_its_lack_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [save_flat(crop_photographs(seed, 1), tmp_path / str(seed)) for seed in (0, 1)]
    arguments = ["--checkpoint", str(images[0]), "--reference", str(images[1]), "--results", str(tmp_path / "rows")]
    arguments += ["--features", "efficientnet-lite0", "--device", "cpu", "--quiet"]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    main(arguments)
    told = "note: all numbers are by ImageNet classifiers; clip_fid (weights by $HAMGAN_CLIP_B32_WEIGHTS) or fd_dinov2"
    assert told in capsys.readouterr().out
    take_for_published(write_random_weights(tmp_path, ["clip-vit-b-32"]), monkeypatch)
    main(arguments)
    printed = capsys.readouterr().out
    assert "clip_fid is measured beside FID: its network is of another family" in printed
    assert "CLIP-FID: " in printed
    assert "note: " not in printed
    main([*arguments, "--metrics", "fid"])
    assert told in capsys.readouterr().out
    file = str(tmp_path / "real.safetensors")
    main(["reference", "--data", str(images[1]), "--resolution", "32", "--output", file, *arguments[-5:]])
    main([*arguments, "--reference", file])  # of one network
    assert "CLIP-FID: " not in capsys.readouterr().out


def test_the_page_has_the_part_of_the_line_that_every_extractor_gives() -> None:
    page = (ROOT / "docs/evaluation.md").read_text()
    for architecture in ARCHITECTURES.values():
        resizer = RESIZING[architecture.resizers[0]][1].format(architecture.size)
        assert f"| {architecture.label} fp32, {resizer}, trained on {architecture.family.saw} |" in page


def test_a_selection_of_the_images_is_a_use_of_its_network() -> None:
    words = "the densest 0.5 of every class by efficientnet-lite0:57934424 (index 01234567)"
    (use,) = uses_in_training(small_generator(**{"data.selected": words})) or [{}]
    assert (use["role"], use["network"], use["family"]) == (
        "selection of the images", "efficientnet-lite0", "ImageNet classifiers",
    )  # fmt: skip
    (told,) = notes_on_same_family(ARCHITECTURES["inception"].family, [use])
    assert "the selection of the images used efficientnet-lite0" in told
    assert notes_on_same_family(ARCHITECTURES["clip-vit-b-32"].family, [use]) == []
