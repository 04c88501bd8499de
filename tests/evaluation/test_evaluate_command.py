"""Test `hamgan evaluate`: its files, its exit codes and its sentences."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.evaluations import small_generator
from support.photo_crops import crop_photographs, save_by_class, save_flat
from support.small_runs import run_small

from hamgan.checkpoint import save_generator
from hamgan.data import default_resolution
from hamgan.data.preparation.command import main as prepare
from hamgan.errors import ConfigError
from hamgan.evaluation.command import main
from hamgan.evaluation.options import evaluate_parser
from hamgan.sampling import load_generator

ROOT = Path(__file__).resolve().parents[2]
COMMON = ["--features", "efficientnet-lite0", "--device", "cpu", "--quiet"]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Write a run folder with a small generator."""
    folder = tmp_path / "run"
    folder.mkdir()
    generator = small_generator()
    save_generator(folder / "generator.safetensors", generator.network, generator.config, kimg=2.0)
    return folder


def test_run_is_evaluated_against_a_reference_file(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, reference = save_flat(crop_photographs(1, 2), tmp_path / "real"), tmp_path / "real.safetensors"
    main(["reference", "--data", str(images), "--resolution", "32", "--output", str(reference), *COMMON])
    assert "12 images, hash" in capsys.readouterr().out
    arguments = ["--checkpoint", str(run_folder), "--reference", str(reference), "--num-samples", "6", *COMMON]
    main([*arguments, "--metrics", "fid,is"])
    printed = capsys.readouterr().out
    assert "FID (efficientnet-lite0): " in printed
    assert "protocol: 6 samples (seed 0" in printed
    rows = [json.loads(line) for line in (run_folder / "results.jsonl").read_text().splitlines()]
    assert [row["kimg"] for row in rows] == [2.0]
    main([*arguments, "--metrics", "fid"])
    assert len((run_folder / "results.jsonl").read_text().splitlines()) == 2


def test_a_reference_has_the_resolution_of_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, folder = tmp_path / "store", save_by_class(crop_photographs(1, 2), tmp_path / "pictures")
    prepare(["--source", str(folder), "--output", str(store), "--resolution", "32", "--workers", "1"])
    main(["reference", "--data", str(store), "--split", "train", "--output", str(tmp_path / "x.safetensors"), *COMMON])
    assert "12 images, hash" in capsys.readouterr().out
    assert [default_resolution(name) for name in ("fashion", "cifar10", "photos")] == [32, 32, 128]


def test_preset_of_yaml_is_the_default_and_options_win(
    tmp_path: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("metrics: [is]\nnum_samples: 6\ntruncation: 0.5\nis_splits: 2\n")
    preset = ["--preset", str(tmp_path / "mine.yaml")]
    main(["--checkpoint", str(run_folder), *preset, "--truncation", "0.7", *COMMON])
    row = json.loads((run_folder / "results.jsonl").read_text())
    assert (row["num_samples"], row["truncation"], row["is_splits"]) == (6, 0.7, 2)
    assert row["preset"] == str(tmp_path / "mine.yaml")


def test_a_run_is_evaluated_as_its_own_section_says_and_options_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["eval.num_samples=10", "eval.reference_samples=12", "eval.metrics=[fid]", "eval.batch_size=5"]
    run = run_small(tmp_path, "train.total_kimg=0.008", *own, "eval.features=efficientnet-lite0")
    main(["--checkpoint", str(run), "--device", "cpu", "--quiet"])
    printed = capsys.readouterr().out
    assert "as the run's eval section has it: metrics fid; num_samples 10; reference photos;" in printed
    main(["--checkpoint", str(run), "--device", "cpu", "--quiet", "--num-samples", "4", "--reference-samples", "6"])
    main(["--checkpoint", str(next((run / "checkpoints").iterdir())), "--device", "cpu", "--quiet", "--metrics", "is"])
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [(row["num_samples"], row.get("reference_count"), row.get("reference")) for row in rows] == [
        (10, 12, "photos"),
        (4, 6, "photos"),
        (10, None, None),
    ]
    assert "inception_score_efficientnet_lite0" not in rows[0]
    preset = tmp_path / "mine.yaml"
    preset.write_text("metrics: [is]\nnum_samples: 6\nis_splits: 1\nfeatures: efficientnet-lite0\n")
    main(["--checkpoint", str(run), "--device", "cpu", "--quiet", "--preset", str(preset)])
    row = json.loads((run / "results.jsonl").read_text().splitlines()[-1])
    assert (row["num_samples"], row["preset"]) == (6, str(preset))
    generator = load_generator(run, "cpu")
    assert [row["num_samples"] for row in generator.evaluations] == [10, 10, 6, 4]


def test_how_long_a_long_evaluation_takes_is_said_at_its_second_batch(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--checkpoint", str(run_folder), "--metrics", "is", "--batch-size", "2", *COMMON[:-1]]
    main([*arguments, "--num-samples", "6"])
    assert "minutes" not in capsys.readouterr().err
    monkeypatch.setattr("hamgan.evaluation.statistics.LONG", 0.0)
    main([*arguments, "--num-samples", "6"])
    printed = capsys.readouterr().err
    assert re.search(r"samples: 6 images take about \d minutes\n", printed), printed


def test_the_spread_over_seeds_is_printed(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = save_flat(crop_photographs(1, 1), tmp_path / "real")
    arguments = ["--checkpoint", str(run_folder), "--reference", str(images), "--num-samples", "6", *COMMON]
    main([*arguments, "--metrics", "fid", "--repeats", "2"])
    printed = capsys.readouterr().out
    row = json.loads((run_folder / "results.jsonl").read_text())
    assert f"(± {row['fid_seeds_std_efficientnet_lite0']:.2g} over 2 seeds)" in printed
    assert "protocol: 6 samples (mean of seeds 0 to 1, " in printed


def test_a_reference_file_of_another_split_is_told_and_refused_by_a_preset(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / "val.safetensors"
    save_by_class(crop_photographs(1, 2), tmp_path / "real" / "train")
    save_by_class(crop_photographs(2, 2), tmp_path / "real" / "val")
    main(["reference", "--data", str(tmp_path / "real"), "--resolution", "32", "--output", str(reference), *COMMON])
    arguments = ["--checkpoint", str(run_folder), "--reference", str(reference), "--num-samples", "6", *COMMON]
    told = "the reference file holds the val split, the protocol says train"
    main([*arguments, "--metrics", "fid", "--split", "train"])
    assert f"warning: {told}" in capsys.readouterr().out
    main([*arguments, "--metrics", "fid"])
    assert told not in capsys.readouterr().out
    with pytest.raises(ConfigError, match=told):
        main([*arguments, "--metrics", "fid", "--split", "train", "--strict"])
    with pytest.raises(ConfigError, match=f"preset biggan: {told}"):
        main([*arguments, "--metrics", "fid", "--preset", "biggan"])


def test_sweep_writes_a_curve_and_a_table(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = save_flat(crop_photographs(1, 1), tmp_path / "real")
    output = tmp_path / "sweep.png"
    sources = ["--checkpoint", str(run_folder), "--reference", str(images), "--num-samples", "6"]
    main(["sweep", *sources, "--truncations", "1,0.5", "--is-splits", "1", "--output", str(output), *COMMON])
    with Image.open(output) as picture:
        assert picture.width > 500
    header, *rows = output.with_suffix(".csv").read_text().splitlines()
    column = header.split(",").index("truncation")
    assert [row.split(",")[column] for row in rows] == ["0.5", "1.0"]
    assert "truncation 0.5, 1, " in capsys.readouterr().out


def test_neighbours_show_copies_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, fake = crop_photographs(1, 3), crop_photographs(0, 1)
    fake[4] = real[10]
    sources = ["--checkpoint", str(save_flat(fake, tmp_path / "fake"))]
    sources += ["--reference", str(save_by_class(real, tmp_path / "real"))]
    main(["neighbours", *sources, "--rows", "3", "--columns", "2", "--output", str(tmp_path / "sheet.png"), *COMMON])
    printed = capsys.readouterr().out
    assert "nearest of 18 real images" in printed
    assert "(smallest\n  0)" in printed or "(smallest\n  0.0" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = sheet.convert("RGB")
    # First row: the sample and, right of it, the image that it copies.
    copy = pixels.crop((pixels.width - 2 * 96 - 2, 18, pixels.width - 96 - 2, 18 + 96))
    sample = Image.fromarray(fake[4]).resize((96, 96), Image.Resampling.NEAREST)
    assert copy.tobytes() == sample.tobytes()


def test_the_distance_of_real_images_is_that_of_all_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = crop_photographs(1, 4)
    real[:4] = real[0]  # the first class has one picture, four times
    sources = ["--checkpoint", str(save_flat(crop_photographs(0, 1)[:3], tmp_path / "fake"))]
    sources += ["--reference", str(save_by_class(real, tmp_path / "real"))]
    main(["neighbours", *sources, "--columns", "2", "--output", str(tmp_path / "sheet.png"), *COMMON])
    found = re.search(r"of a real image to the nearest other one: ([\d.]+)", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 1


def test_class_table_and_confusions_are_written(tmp_path: Path) -> None:
    real, fake = (save_by_class(crop_photographs(seed, 2), tmp_path / str(seed)) for seed in (0, 1))
    table = tmp_path / "classes.csv"
    sources = ["--checkpoint", str(fake), "--reference", str(real), "--metrics", "per_class"]
    main([*sources, "--class-table", str(table), "--confusion", str(tmp_path / "confusion.png"), *COMMON])
    assert table.read_text().splitlines()[0] == "class,samples,reference,distance,diversity,leakage,leakage_real"
    assert len(table.read_text().splitlines()) == 7
    assert (tmp_path / "confusion.csv").read_text().startswith("class,taken_for,share,share_real\n")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chekpoint", "x"], "unknown option --chekpoint; did you mean `--checkpoint`"),
        (["refrence"], "unknown command 'refrence'.*did you mean `reference`"),
        (["--checkpoint", "absent", "--metrics", "is"], "there is nothing at absent"),
        (["--checkpoint", ".", "--num-samples", "many"], "argument --num-samples: invalid int value: 'many'"),
        (
            ["--checkpoint", ".", "--class-table", "x.csv"],
            "--class-table needs per_class among --metrics; they are fid",
        ),
        (["--checkpoint", ".", "--confusion", "x.png"], "--confusion needs per_class among --metrics"),
        (
            ["--checkpoint", ".", "--metrics", "per_class", "--confusion", "x.pdf"],
            r"--confusion x\.pdf must end in \.png",
        ),
        (["sweep", "--checkpoint", ".", "--output", "x.pdf"], r"x\.pdf must end in \.png"),
        (
            ["sweep", "--checkpoint", ".", "--output", f"{ROOT}/README.md/x.png"],
            "README.md is a file.*another --output",
        ),
        (
            ["--checkpoint", ".", "--results", f"{ROOT}/README.md/x.jsonl"],
            "README.md is a file.*another --results",
        ),
        (["--checkpoint", ".", "--results", str(ROOT)], "--results .* is a folder; name a file"),
        (
            ["--checkpoint", ".", "--metrics", "per_class", "--class-table", f"{ROOT}/README.md/x.csv"],
            "README.md is a file.*another --class-table",
        ),
        (["reference", "--data", ".", "--output", "x.npz"], r"x\.npz must end in \.safetensors"),
    ],
)
def test_bad_usage_is_a_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = [] if arguments[0] == "refrence" else COMMON
    with pytest.raises(ConfigError, match=message):
        main([*arguments, *extra])
    assert not list(tmp_path.iterdir())


def test_script_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/evaluate.py"), "--checkpoint", str(tmp_path / "absent"), *COMMON],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        timeout=200,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is nothing at ")
    assert len(done.stderr.splitlines()) == 1


def test_command_line_is_frozen() -> None:
    """Check the options that scripts and notebooks rely on; options may be added but not renamed."""
    expected = {
        "evaluate": "checkpoint reference metrics features num-samples seed repeats truncation labels batch-norm "
        "no-ema split reference-samples is-splits kid-subsets kid-subset-size neighbours resizer inception-sha256 "
        "inception-weights batch-size device compile quiet preset strict cache memory-gib results class-table "
        "confusion",
        "reference": "data output split resolution features keep-features is-splits",
        "sweep": "checkpoint reference truncations output num-samples cache",
        "neighbours": "checkpoint reference split output rows columns num-samples",
    }
    parser, commands = evaluate_parser()
    for command, names in expected.items():
        assert {f"--{name}" for name in names.split()} <= set(commands.get(command, parser).options)


def test_help_lists_the_options_and_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: hamgan evaluate ")
    for part in ("--num-samples INT", "(default: 50000)", "reference ", "sweep ", "neighbours ", "--no-ema"):
        assert part in text
    with pytest.raises(SystemExit, match="0"):
        main(["neighbours", "--help"])
    assert "(default: train)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_samples", "6"], "--num_samples is called --num-samples now"),
        (["--ema", "false"], "--ema is called --no-ema now"),
        (["neighbours", "--samples=x"], "--samples is called --checkpoint now"),
        (["sweep", "--is_splits", "1"], "--is_splits is called --is-splits now"),
        (["--compiled"], "--compiled is called --compile now"),
        (["--precision", "bf16"], "--precision was removed: features are computed in float32, or with --tf32"),
        ([], "--checkpoint is missing"),
        (["reference"], "required: --data, --output"),
        (["--checkpoint", ".", "--batch-size", "0", "--metrics", "is", *COMMON], "batch_size is 0; it must be 1"),
        (["--checkpoint", ".", "--metrics", ","], "metrics is empty; there are fid, is"),
        (["--checkpoint", ".", "--reference-samples", "-5"], "reference_samples is -5; a covariance needs two"),
        (["--checkpoint", ".", "--kid-subset-size", "1"], "kid_subset_size is 1; KID compares pairs, so 2 at least"),
        (["--checkpoint", ".", "--metrics", "is", *COMMON, "--device", "cdua"], "device cdua cannot be used: "),
        (["--checkpoint", ".", "--labels", "unifrom"], "labels is 'unifrom'.*did you mean `uniform`"),
    ],
)
def test_renamed_and_missing_options_are_sentences(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(arguments)


def test_no_ema_and_options_beside_a_preset_reach_the_row(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("metrics: [is]\nnum_samples: 6\nis_splits: 1\nema: true\nprecision: fp32\n")
    arguments = ["--checkpoint", str(run_folder), "--preset", str(tmp_path / "old.yaml"), *COMMON]
    main(arguments)
    row = json.loads((run_folder / "results.jsonl").read_text())
    assert (row["num_samples"], row["ema"], row["feature_precision"]) == (6, True, "fp32")
    with pytest.raises(ConfigError, match="has the averaged generator alone"):
        main([*arguments, "--no-ema"])
    (tmp_path / "old.yaml").write_text("precision: bf16\n")
    with pytest.raises(ConfigError, match="precision is bf16; they are float32, or TF32 with tf32: true"):
        main(arguments)
