"""Check what `hamgan segment` prints and writes, and that every mistake is a sentence."""

import contextlib
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.lands import needs_land
from support.small_runs import forget_accelerator
from support.small_segmentation import VALUES, run_small

from hamgan.errors import CheckpointError, ConfigError, DataError
from hamgan.segmentation.command import COMMANDS, main
from hamgan.tracking.html.report import write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


def test_every_command_is_in_the_help_and_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name}" in text
        with contextlib.suppress(SystemExit):
            main([name, "--help"])
        assert f"hamgan segment {name}" in capsys.readouterr().out


def test_a_run_is_evaluated_as_its_own_section_says_or_otherwise(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", "--checkpoint", str(run), "--class-table", str(run / "classes.csv")])
    text = capsys.readouterr().out
    assert (
        "protocol: 6 images of mosaic/val, 12 classes; own size; scale 1; not mirrored; whole; K 7; bases seed 0"
        in text
    )
    assert len((run / "classes.csv").read_text().splitlines()) == 13
    arguments = ["--images", "2", "--multi-scale", "--size-divisor", "32", "--short-side", "96", "--bases-seeds", "0,3"]
    main(["evaluate", "--checkpoint", str(run), *arguments, "--mode", "slide", "--window", "64", "--stride", "48"])
    text = capsys.readouterr().out
    for part in (
        "2 images",
        "96 x 2048 px",
        "multiples of 32",
        "0.5, 0.75, 1, 1.25, 1.5, 1.75",
        "mirrored too",
        "slide 64/48",
        "seed 0, 3",
    ):
        assert part in text
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [6, 2]
    assert rows[0]["kimg"] == 0.008
    with (run / "classes.csv").open() as file:
        table = list(csv.DictReader(file))
    ious = [float(row["iou"]) for row in table if row["iou"]]
    assert np.mean(ious) == pytest.approx(rows[0]["miou"])


def test_a_run_becomes_a_page(run: Path) -> None:
    main(["evaluate", "--checkpoint", str(run)])
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    for part in ("6 images of mosaic/val", "van tiny with light_ham", "learning rates"):
        assert part in page
    for part in ('<th scope="row">highest mIoU</th>', "<th>mIoU</th><th>mAcc</th><th>aAcc</th>"):
        assert part in page
    rows = (run / "results.jsonl").read_text()
    other = json.loads(rows.splitlines()[-1]) | {"size": [32, 2048], "miou": 0.99}
    other["protocol"] = other["protocol"].replace("mosaic/val", "mosaic/val at 32x2048")
    (run / "results.jsonl").write_text(json.dumps(other) + "\n" + rows)
    main(["report", str(run)])
    best = (run / "report.html").read_text().partition("highest mIoU</th>")[2].partition("</tr>")[0]
    assert "99.00" not in best, "numbers of another size are not compared"
    with pytest.raises(CheckpointError, match="is the run of a segmenter: hamgan segment report"):
        write_report(run)


def test_pictures_become_label_maps(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "pictures/a.png")
    (tmp_path / "pictures/._a.png").write_text("what macOS writes beside a file")
    arguments = ["predict", "--checkpoint", str(run), str(tmp_path / "pictures"), "--output", str(out)]
    main([*arguments, "--overlays", "--arrays"])
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "a.png", "a_overlay.png"]
    assert Image.open(out / "a.png").size == (50, 70)
    assert "1 label maps" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds files already; choose another, or add --force"):
        main(arguments)
    (tmp_path / "pictures/0.png").write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"1 of 2 pictures have none; the first: .*0\.png cannot be read"):
        main([*arguments, "--force"])
    assert "1 label maps" in capsys.readouterr().out, "those behind a bad picture are labelled all the same"


def test_an_inspection_counts_classes_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        for folder, values in (
            ("images", np.zeros((20, 30, 3), np.uint8)),
            ("masks", np.full((20, 30), number % 2, np.uint8)),
        ):
            (tmp_path / folder / "train").mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / "train" / f"{number}.png")
    (tmp_path / "classes.yaml").write_text("[sea, land, ice]")
    sheet = tmp_path / "sheets/sheet.png"
    arguments = [
        "inspect",
        "--data.source",
        str(tmp_path),
        "--augment.crop",
        "32",
        "--augment.short_side",
        "20",
        "--output",
        str(sheet),
    ]
    main(arguments)
    text = capsys.readouterr().out
    assert "4 images, 3 classes" in text
    assert "30 x 20 (4)" in text
    assert re.search(r"sea +1,200 pixels +50\.00%", text)
    assert "1 classes occur nowhere: ice" in text
    assert Image.open(sheet).width > 500
    for number in (1, 2):
        Image.fromarray(np.full((20, 30), 9, np.uint8)).save(tmp_path / f"masks/train/{number}.png")
    with pytest.raises(
        DataError, match=r"2 of 4 images of .* cannot be used; the first: .*1\.png has values that are no class"
    ):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["trane"], ConfigError, "unknown command `trane`; there are train, .* did you mean `train`"),
        (["train"], ConfigError, "--config is missing: name a YAML file or one of .*land, .*mosaic"),
        (["train", "--config", "lnd"], ConfigError, "did you mean `land`"),
        (["train", "--config", "land", "--train.batchsize", "3"], ConfigError, r"did you mean `train\.batch_size`"),
        (["train", "--config", "land", "--head.context", "nothing"], ConfigError, "hamburger"),
        (
            ["train", "--config", "mosaic", "--auxiliary.weight=1", "--auxiliary.channels=100"],
            ConfigError,
            r"auxiliary\.channels 100 does not divide into head\.groups",
        ),
        (["evaluate"], ConfigError, "--checkpoint"),
        (["evaluate", "--checkpoint", "nowhere/at/all"], CheckpointError, "no checkpoint at nowhere/at/all"),
        (
            ["evaluate", "--checkpoint", "x", "--scale", "1"],
            ConfigError,
            "unknown option --scale; did you mean `--scales`",
        ),
        (["evaluate", "--checkpoint", "x", "--bases-seeds", "4-1"], ConfigError, "no list of whole numbers"),
        (["evaluate", "--checkpoint", "x", "--layout", "ade"], ConfigError, "invalid choice: 'ade'"),
        (["evaluate", "--checkpoint", ".", "--class-table", "."], ConfigError, "--class-table . is a folder"),
        (["inspect", "--data.source", "mosaic", "--output", "sheet"], ConfigError, "--output sheet must end in .png"),
        (["demo", "--data.source", "mosaic"], ConfigError, "to train on mosaic use hamgan segment train"),
        (["predict", "--checkpoint", "x", "a.png"], ConfigError, "--output"),
        (["predict", "--checkpoint", "x", "a.png", "--output", "o"], DataError, "no picture and no folder at a.png"),
    ],
)
def test_mistakes_are_sentences(arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_options_that_contradict_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="--multi-scale sets the scales; leave out --scales"):
        main(["evaluate", "--checkpoint", str(run), "--multi-scale", "--scales", "1"])
    with pytest.raises(ConfigError, match=r"stride 600 is above eval\.window 512"):
        main(["evaluate", "--checkpoint", str(run), "--stride", "600"])
    with pytest.raises(ConfigError, match="--window and --stride are for --mode slide"):
        main(["evaluate", "--checkpoint", str(run), "--window", "600"])
    with pytest.raises(ConfigError, match="--long-side limits --short-side"):
        main(["evaluate", "--checkpoint", str(run), "--long-side", "64"])
    with pytest.raises(DataError, match=r"data\.classes is for folders; mosaic has classes of its own"):
        main(["evaluate", "--checkpoint", str(run), "--classes", "classes.yaml"])


@needs_land
def test_data_of_other_classes_is_refused(run: Path) -> None:
    with pytest.raises(DataError, match="land has 8 classes and the segmenter 12, and they are not the same"):
        main(["evaluate", "--checkpoint", str(run), "--data", "land"])


@needs_land
def test_the_demo_measures_beside_colour_and_the_grid_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_accelerator()
    main(["demo", *(f"--{value}" for value in VALUES), f"--run_dir={tmp_path / 'run'}", "--train.total_kimg=0.008"])
    forget_accelerator()
    text = capsys.readouterr().out
    assert re.search(r"colour of each pixel alone +4\d\.\d +8\d\.\d", text)
    assert re.search(r"the truth on a grid of 4 pixels +79\.7 +95\.1", text)
    assert Image.open(tmp_path / "run/demo.png").height > 1000
