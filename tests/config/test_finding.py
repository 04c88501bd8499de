"""Check that a configuration is found by its path, or as a preset by its name from any folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.small_runs import environment

from hamgan.config import load_config, parse_config, preset_names, preset_path, save_config
from hamgan.config.presets import check_run_to_resume
from hamgan.errors import ConfigError
from hamgan.training.command import main as train


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder outside the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_presets_are_the_files_of_the_checkout() -> None:
    assert preset_names() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert preset_path("photos") == preset_path("photos.yaml") == ROOT / "configs/photos.yaml"


@pytest.mark.parametrize("name", ["photos", "photos.yaml"])
def test_a_preset_is_loaded_by_name_from_any_folder(name: str, elsewhere: Path) -> None:
    (elsewhere / "photos").mkdir()  # a folder of images, say
    expected = load_config(ROOT / "configs/photos.yaml")
    assert load_config(name) == expected
    assert parse_config(["--config", name])[0] == expected
    assert parse_config([f"--config={name}", "--seed", "3"])[0].seed == 3


def test_a_file_comes_before_a_preset_of_its_name(elsewhere: Path) -> None:
    for path in ("photos", "cifar10.yaml", "configs/photos.yaml"):
        (elsewhere / path).parent.mkdir(exist_ok=True)
        (elsewhere / path).write_text(f"name: {path.replace('/', '-')}\n")
        assert load_config(path).name == path.replace("/", "-")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fotos", r"no preset is called `fotos`; there are biggan_imagenet128, .*; did you mean `photos`\?$"),
        ("zzz", r"no preset is called `zzz`; there are biggan_imagenet128, .*sagan_imagenet128$"),
        (
            "fotos.yaml",
            r"no configuration file at fotos.yaml; did you mean `photos`\? Presets are biggan_imagenet128, ",
        ),
        ("configs/cifar10.yaml", r"no configuration file at configs/cifar10.yaml; did you mean `cifar10`\? Presets"),
        ("some/zzz.yaml", r"no configuration file at some/zzz.yaml\. Presets are biggan_imagenet128, "),
        ("photos.json", r"no configuration file at photos.json; did you mean `photos`\?"),
        ("", "--config needs a file or the name of a preset: biggan_imagenet128, "),
    ],
)
def test_what_is_not_found_names_the_nearest_and_all_presets(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(name)


def test_config_without_a_value_gets_a_sentence() -> None:
    with pytest.raises(ConfigError, match="--config needs a file or the name of a preset"):
        parse_config(["--seed", "1", "--config"])


def test_presets_inside_an_installed_package_are_found_first(elsewhere: Path) -> None:
    site = elsewhere / "site"
    shutil.copytree(ROOT / "hamgan", site / "hamgan", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "hamgan/configs").mkdir()
    (site / "hamgan/configs/mine.yaml").write_text("name: installed\n")
    (site / "configs").mkdir()
    program = "from hamgan.config import load_config, preset_names; print(load_config('mine').name, preset_names())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment() | {"PYTHONPATH": str(site)},
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "installed ['mine']\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "`photos` is given without an option; did you mean --config photos?"),
        (["--seed", "1", "foto"], "`foto` is given without an option; did you mean --config photos?"),
        (["mine.yml"], "`mine.yml` is given without an option; did you mean --config mine.yml?"),
        (["runs/a"], "`runs/a` is given without an option; to resume that run: --config runs/a/config.yaml"),
        (["zzz"], "`zzz` is given without an option"),
        (["--config", "runs/a"], "runs/a is a run folder; its configuration is --config runs/a/config.yaml"),
    ],
)
def test_a_word_without_an_option_is_told_what_it_may_have_been(
    arguments: list[str], message: str, elsewhere: Path
) -> None:
    (elsewhere / "runs/a").mkdir(parents=True)
    for name in ("runs/a/config.yaml", "mine.yml"):
        (elsewhere / name).write_text("name: a\n")
    with pytest.raises(ConfigError) as caught:
        parse_config(arguments)
    assert str(caught.value) == message


def test_a_run_that_was_moved_does_not_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "runs/moved/checkpoints").mkdir(parents=True)
    config, file = load_config("photos", ["name=first"]), "runs/moved/config.yaml"
    save_config(config, Path(file))
    with pytest.raises(ConfigError, match=r"moved holds a run, .* start in runs/first; .*: --run_dir runs/moved; for"):
        train(["--config", file, "--train.total_kimg", "1"])
    assert not (tmp_path / "runs/first").exists()
    for arguments in (["--config", file, "--name=second"], ["--run_dir", "runs/moved", f"--config={file}"]):
        check_run_to_resume(arguments, parse_config(arguments)[0].folder)
    (tmp_path / "runs/moved").rename(tmp_path / "runs/first")
    check_run_to_resume(["--config", "runs/first/config.yaml"], config.folder)
