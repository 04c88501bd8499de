"""Test `hamgan sample`: its images and files, its refusals, and that nothing is left half-written."""

import itertools
import re
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT
from support.small_runs import LAUNCH, python, run_small

from hamgan.checkpoint import generator_from_state
from hamgan.checkpoint.tensors import read_tensors
from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.networks.batch_norm import batch_norm_statistics
from hamgan.networks.inference import fold_spectral_norm
from hamgan.sampling import LoadedGenerator, imagenet_names, load_generator, parse_classes
from hamgan.sampling.classes import describe_classes, find_class, readable_names
from hamgan.sampling.command import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


@pytest.fixture(scope="module")
def generator(run: Path) -> LoadedGenerator:
    return load_generator(run, device="cpu")


def sample(run: Path, out: Path, *options: object) -> Path:
    main(["--checkpoint", str(run), "--device", "cpu", "--output", str(out), *map(str, options)])
    return out


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def drawn(generator: LoadedGenerator, seed: int, label: int, truncation: float = 1.0) -> np.ndarray:
    image: torch.Tensor = generator([seed], [label], truncation, output="tensor")[0]
    return image.permute(1, 2, 0).numpy()


def test_a_folder_holds_the_images_of_the_api(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    folder = sample(run, tmp_path / "new/images", "--classes", "cat", "5-6", "--seeds", "0-1,9", "--truncation", 0.6)
    assert len(list(folder.iterdir())) == 9
    np.testing.assert_array_equal(pixels(folder / "0006-seed000009.png"), drawn(generator, 9, 6, 0.6))
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


def test_sampling_does_not_load_the_compiler(tmp_path: Path) -> None:
    """Importing torch's compiler takes as long as importing torch; drawing an embedding on "meta" imports it too."""
    no_embedding = ["generator.conditioning=per_class", "generator.hierarchical=false"]
    run = run_small(tmp_path, "train.total_kimg=0.008", *no_embedding)
    code = "import sys; from hamgan.sampling.command import main; main(sys.argv[1:]); "
    code += "print('torch._dynamo' in sys.modules)"
    done = python("-c", code, "--checkpoint", run, "--device", "cpu", "--output", tmp_path / "grid.png")
    assert done.stdout.endswith("False\n"), done.stderr


def test_classes_may_have_seeds_of_their_own(run: Path, tmp_path: Path) -> None:
    folder = sample(run, tmp_path / "images", "--classes", "4,2", "--per-class", 2)
    names = ["0002-seed000002", "0002-seed000003", "0004-seed000000", "0004-seed000001"]
    assert sorted(path.stem for path in folder.iterdir()) == names


def test_arrays_are_adms(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    with np.load(sample(run, tmp_path / "images.npz", "--classes", "3,1", "--seeds", "4-5")) as arrays:
        images, labels = arrays["arr_0"], arrays["arr_1"]
    assert (images.dtype, images.shape, labels.tolist()) == (np.uint8, (4, 32, 32, 3), [3, 3, 1, 1])
    np.testing.assert_array_equal(images[3], drawn(generator, 5, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def test_a_sweep_sets_truncations_side_by_side(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    options = ["--classes", "1-2", "--seeds", "3", "--truncation", "0.2,1"]
    sheet = pixels(sample(run, tmp_path / "sweep.png", *options, "--scale", 1))
    np.testing.assert_array_equal(sheet[-32:, -32:], drawn(generator, 3, 2))
    np.testing.assert_array_equal(sheet[36:68, -32 - 12 - 32 : -32 - 12], drawn(generator, 3, 1, 0.2))
    names = {path.stem for path in sample(run, tmp_path / "sweep", *options).iterdir()}
    assert "0002-seed000003-truncation0.2" in names


def test_sheets_and_films_are_large_enough_to_see_and_arrays_and_folders_stay_raw(
    run: Path, generator: LoadedGenerator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--classes", "1-2", "--seeds", "0-1"]
    sheet = pixels(sample(run, tmp_path / "sheet.png", *options))
    np.testing.assert_array_equal(sheet[-96::3, -96::3], drawn(generator, 1, 2))
    assert (sheet[-96::3, -96:] == sheet[-94::3, -96:]).all()
    assert "sheet.png (enlarged 3 times; --scale 1: raw pixels)" in capsys.readouterr().out
    with Image.open(sample(run, tmp_path / "film.gif", *options, "--frames", 2)) as film:
        assert film.size == (256, 128)
    (path, *others) = sample(run, tmp_path / "folder", *options).iterdir()
    assert (pixels(path).shape, len(others)) == ((32, 32, 3), 3)
    with np.load(sample(run, tmp_path / "images.npz", *options)) as arrays:
        assert arrays["arr_0"].shape == (4, 32, 32, 3)
    large = sample(run, tmp_path / "large.png", "--classes", "1", "--seeds", "0-1999")
    assert pixels(large).size < 3 * 16_000_000  # enlarged by less


def test_a_way_says_which_end_is_which(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    way = ["--interpolate", "classes", "--classes", "cat", "coffee", "cat", "--seeds", "4", "--frames", 2]
    sheet = pixels(sample(run, tmp_path / "way.png", *way))
    assert "cat → coffee → cat" in capsys.readouterr().out
    headings = [sheet[:18, column : column + 96] for column in range(sheet.shape[1] - 5 * 98 + 2, sheet.shape[1], 98)]
    assert min(heading.min() for heading in headings) < 100  # each of the five
    np.testing.assert_array_equal(headings[0], headings[4])
    assert (headings[0] != headings[2]).any()
    sample(run, tmp_path / "short.png", "--interpolate", "classes", "--classes", "cat", "coffee")
    assert "classes: cat (index 2), coffee (index 3)\n" in capsys.readouterr().out
    sample(run, tmp_path / "walk.gif", "--classes", "cat,coffee", "--seeds", "4,7", "--frames", 2)
    assert "seed 4 → seed 7 → seed 4; 2 tiles a line: cat, coffee" in capsys.readouterr().out


def test_what_is_named_twice_is_drawn_once(run: Path, tmp_path: Path) -> None:
    twice = ["--classes", "cat,2,cat", "--seeds", "0-2,1", "--truncation", "0.5,0.5"]
    with np.load(sample(run, tmp_path / "images.npz", *twice)) as arrays:
        assert arrays["arr_1"].tolist() == [2, 2, 2]
    walk = ["--interpolate", "seeds", "--classes", "2,2", "--seeds", "0,1", "--frames", 1]
    assert len(list(sample(run, tmp_path / "walk", *walk).iterdir())) == 2


def test_force_replaces_files_and_folders_of_pictures_and_nothing_else(run: Path, tmp_path: Path) -> None:
    options = ["--classes", "1", "--seeds"]
    for name in ("a.png", "folder"):
        before = sample(run, tmp_path / name, *options, "0-1").stat()
        with pytest.raises(ConfigError, match=f"{name} exists already; choose another --output, or add --force"):
            sample(run, tmp_path / name, *options, "2")
        after = sample(run, tmp_path / name, *options, "2", "--force").stat()
        assert before.st_ino != after.st_ino
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["0001-seed000002.png"]
    (tmp_path / "folder/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"with notes.txt in it; --force replaces folders of \.png files alone"):
        sample(run, tmp_path / "folder", *options, "3", "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder"]


def test_a_sheet_per_class_carries_its_name(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    folder = sample(run, tmp_path / "sheets", "--sheets", "--seeds", "0-3", "--scale", 2)
    names = sorted(path.stem for path in folder.iterdir())
    assert names[2] == "0002-cat"
    assert len(names) == generator.num_classes
    sheet = pixels(folder / "0002-cat.png")
    np.testing.assert_array_equal(sheet[18:82:2, :64:2], drawn(generator, 0, 2))
    assert sheet[:18].min() < 100  # a title


def test_ways_between_seeds_and_classes_show_both_ends(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    way = ["--interpolate", "seeds", "--seeds", "0,7", "--classes", "3", "--frames", 4]
    folder = sample(run, tmp_path / "seeds", *way)
    frames = [pixels(path).astype(int) for path in sorted(folder.iterdir())]
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[0], drawn(generator, 0, 3))
    assert np.abs(frames[-1] - drawn(generator, 7, 3)).max() <= 1  # through sines of angles
    steps = [np.abs(b - a).mean() for a, b in itertools.pairwise(frames)]
    assert max(steps) < np.abs(frames[-1] - frames[0]).mean()
    folder = sample(run, tmp_path / "classes", "--interpolate", "classes", "--seeds", "7", "--classes", "3", "5")
    frames = [pixels(path).astype(int) for path in sorted(folder.iterdir())]
    assert len(frames) == 9
    assert np.abs(frames[0] - drawn(generator, 7, 3)).max() <= 1
    assert np.abs(frames[-1] - drawn(generator, 7, 5)).max() <= 1


@pytest.mark.parametrize(
    ("options", "weights", "statistics"),
    [
        ([], "average", "average"),
        (["--batch-norm", "running"], "average", "generator"),
        (["--no-ema"], "generator", "generator"),
        (["--no-ema", "--batch-norm", "ema"], "generator", "average"),
    ],
)
def test_weights_and_statistics_are_those_asked_for(
    run: Path, tmp_path: Path, options: list[str], weights: str, statistics: str
) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    state = {part: read_tensors(checkpoint / "state.safetensors", f"{part}.")[0] for part in ("average", "generator")}
    tensors = state[weights] | batch_norm_statistics(state[statistics])
    config = load_config(run / "config.yaml")
    expected = LoadedGenerator(fold_spectral_norm(generator_from_state(config, tensors, checkpoint)), config)
    folder = sample(run, tmp_path / "images", "--classes", 1, "--seeds", 3, *options)
    np.testing.assert_array_equal(pixels(folder / "0001-seed000003.png"), drawn(expected, 3, 1))


def test_films_have_their_rate_and_their_frames(run: Path, generator: LoadedGenerator, tmp_path: Path) -> None:
    way = ["--classes", "3,4", "--seeds", "0-2", "--frames", 3, "--fps", 10, "--scale", 2]
    with Image.open(sample(run, tmp_path / "walk.gif", *way)) as film:
        assert (getattr(film, "n_frames", 1), film.info["duration"], film.info["loop"], film.size) == (
            9,
            100,
            0,
            (128, 64),
        )
        first = np.asarray(film.convert("RGB"))[:64:2, :64:2].astype(int)
    assert np.abs(first - drawn(generator, 0, 3)).mean() < 6  # 256 colours
    reader = imageio_ffmpeg.read_frames(str(sample(run, tmp_path / "walk.mp4", *way)))
    facts = next(reader)
    frames = [np.frombuffer(frame, np.uint8).reshape(64, 128, 3) for frame in reader]
    assert (facts["fps"], facts["size"], facts["codec"], len(frames)) == (10, (128, 64), "h264", 9)
    assert np.abs(frames[0][::2, 64::2].astype(int) - drawn(generator, 0, 4)).mean() < 12  # chroma at half size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.gif", "walk.mp4"]


@pytest.mark.parametrize(
    ("options", "out", "message"),
    [
        (["--classes", "kat"], "a.png", "no class is called 'kat'; nearest: cat"),
        (["--classes", "5-2"], "a.png", "class range '5-2' runs backwards; write 2-5"),
        (["--truncation", "0.5,0"], "a.png", "truncation is 0.0; it must be above 0"),
        (["--truncation", "a"], "a.png", "truncation 'a': give a number"),
        (["--per-class", "0"], "a.png", "per-class is 0"),
        (
            ["--per-class", "4", "--seeds", "0-7"],
            "a",
            "12 classes with 4 seeds of their own need 48 seeds",
        ),
        (["--seeds", "1"], "a.gif", "a way between seeds needs two seeds or more; 1 given"),
        (["--interpolate", "classes", "--classes", "1"], "a", "needs two classes or more; 1 given"),
        (["--frames", "0"], "a.gif", "frames is 0"),
        (["--scale", "2", "--classes", "0"], "a.npz", "scale is 2: only sheets and animations are enlarged"),
        (["--frames", "5"], "a.png", "--frames is for the way between seeds or classes"),
        (["--fps", "24"], "a.gif", "fps is 24; a GIF shows .* take 25"),
        (["--fps", "0"], "a.mp4", "fps is 0; allowed: 1 to 120"),
        (["--truncation", "0.5,1"], "a.gif", "several truncations cannot be had on the way between seeds"),
        (["--sheets"], "a.png", "a sheet per class needs a folder"),
        (["--batch-size", "0"], "a.png", "batch-size is 0"),
        (["--seeds", "0-9999", "--scale", "4"], "a.png", "pixels, more than viewers open"),
        ([], "a.webm", "animations as .gif or .mp4"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    run: Path, tmp_path: Path, options: list[str], out: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(run, tmp_path / out, *options)
    assert not list(tmp_path.iterdir())


def test_the_old_name_of_an_option_is_a_sentence(run: Path, tmp_path: Path) -> None:
    for arguments in (["--out", str(tmp_path / "a.png")], [f"--out={tmp_path / 'a.png'}"]):
        with pytest.raises(ConfigError, match="--out is called --output now"):
            main(["--checkpoint", str(run), *arguments])
    assert not list(tmp_path.iterdir())


def test_without_ffmpeg_a_film_is_refused_before_anything_is_drawn(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"MP4 needs ffmpeg: pip install imageio-ffmpeg .*, or write a \.gif instead"):
        sample(run, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_a_failure_while_drawing_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadedGenerator, "images", lambda *_: 1 / 0)
    for out in ("images", "images.npz", "sheet.png"):
        with pytest.raises(ZeroDivisionError):
            sample(run, tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_standing_statistics_change_the_images_and_are_reproducible(run: Path, tmp_path: Path) -> None:
    options = ["--classes", "1", "--seeds", "0-1"]
    stored = pixels(sample(run, tmp_path / "stored.png", *options))
    first, second = (
        pixels(sample(run, tmp_path / f"{number}.png", *options, "--batch-norm", "standing")) for number in (1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first.astype(int) - stored).mean() > 0.1


def test_imagenet_is_known_by_names_and_by_synsets() -> None:
    names = imagenet_names()
    assert (len(names), names[207]) == (1000, "golden retriever")
    synsets = [f"n{index:08d}" for index in range(1000)]
    assert readable_names(synsets, 1000) == names
    assert [find_class(name, synsets, 1000) for name in ("golden retriever", "n00000980", "Golden_Retriever")] == [
        207,
        980,
        207,
    ]
    with pytest.raises(ConfigError, match="nearest: golden retriever"):
        find_class("goldn retriever", synsets, 1000)
    with pytest.raises(ConfigError, match="no class is called 'n99999999'; the names are n00000000"):
        find_class("n99999999", synsets, 1000)
    with pytest.raises(ConfigError, match="this generator has no class names; use 0 to 4"):
        find_class("volcano", None, 5)


def test_names_with_commas_are_one_class(generator: LoadedGenerator) -> None:
    other = LoadedGenerator(
        generator.network, generator.config, class_names=["tench, Tinca tinca", "coffee"] + ["x"] * 13
    )
    assert parse_classes(["tench, Tinca tinca", "coffee,0"], other) == [0, 1, 0]


def test_a_name_wins_over_an_index(generator: LoadedGenerator) -> None:
    textual = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, ...: the order of earlier versions
    assert [find_class(name, textual, 12) for name in ("10", "2", 2)] == [2, 4, 2]
    other = LoadedGenerator(generator.network, generator.config, class_names=[f"{i:05d}" for i in range(1, 16)])
    assert parse_classes(["3", "00004", "5-7,15"], other) == [2, 3, 4, 5, 6, 14]
    with pytest.raises(ConfigError, match="no class is called '0'; there are 00001, 00002"):
        parse_classes(["0"], other)
    assert find_class("2", ["2", "cat", "02"], 3) == 0
    assert find_class("1", ["2", "cat", "02"], 3) == 1
    assert describe_classes([2, 4, 2], textual) == "10 (index 2), 2 (index 4)"


def test_names_are_compared_without_regard_to_case_and_to_how_accents_are_written() -> None:
    names = ["Cafe\u0301", "cat", "Cat", "STRASSE"]
    assert [find_class(name, names, 4) for name in ("caf\u00e9", "Cat", "cat", "straße")] == [0, 2, 1, 3]
    with pytest.raises(ConfigError, match="no class is called 'CAT'; nearest: cat, Cat"):
        find_class("CAT", names, 4)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(run: Path, tmp_path: Path) -> None:
    options = ["--classes", "0-4", "--seeds", "0-2"]
    alone = sample(run, tmp_path / "alone.npz", *options)
    # One launch for both kinds of output: most of its time is imports.
    script = tmp_path / "both.py"
    script.write_text(
        "import sys\nfrom hamgan.distributed.group import joined_processes\nfrom hamgan.sampling.command import main\n"
        "with joined_processes():\n"
        f"    for out in ('images.npz', 'images'): main([*sys.argv[1:], '--output', r'{tmp_path}/' + out])\n"
    )
    launched = python(*LAUNCH, script, "--checkpoint", run, *options)
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert len(re.findall("wrote 15 images", launched.stdout)) == 2
    with np.load(alone) as ours, np.load(tmp_path / "images.npz") as theirs:
        np.testing.assert_array_equal(ours["arr_0"], theirs["arr_0"])
        np.testing.assert_array_equal(pixels(tmp_path / "images/0004-seed000002.png"), ours["arr_0"][14])
    assert len(list((tmp_path / "images").iterdir())) == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.npz", "both.py", "images", "images.npz"]


def test_the_script_starts(run: Path, tmp_path: Path) -> None:
    result = python(ROOT / "scripts/sample.py", "--checkpoint", run, "--classes", "1", "--output", tmp_path / "a.png")
    assert result.returncode == 0, result.stderr
    written = f"wrote 8 images to {tmp_path / 'a.png'} (enlarged 3 times; --scale 1: raw pixels)\n"
    assert result.stdout == f"classes: brick (index 1)\n{written}"
