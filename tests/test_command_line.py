"""Check that the options of scripts and the public signatures stay, and that every error is a sentence."""

import inspect
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT
from support.small_runs import forget_accelerator, run_small, write_config

import hamgan
from hamgan import convert, hamburger
from hamgan.config import known_keys

# Other people's scripts use these keys: one may be added, none renamed or dropped without a way for old files.
KEYS = re.findall(
    r"\S+",
    """
name run_dir seed resolution
generator.channels generator.latent_dim generator.hierarchical generator.conditioning generator.class_embedding_dim
generator.context generator.context_resolutions generator.init
generator.hamburger.decomposition generator.hamburger.version generator.hamburger.latent_dim generator.hamburger.rank
generator.hamburger.heads generator.hamburger.steps generator.hamburger.eval_steps generator.hamburger.temperature
generator.hamburger.mode generator.hamburger.dual generator.hamburger.cheese_factor generator.hamburger.cheese_dim
generator.hamburger.gradient generator.hamburger.bases generator.hamburger.momentum generator.hamburger.normalise_bases
generator.hamburger.ridge
generator.norm.eps generator.norm.momentum generator.norm.biased generator.norm.cross_replica
generator.spectral_norm.enabled generator.spectral_norm.clamp generator.spectral_norm.vector generator.spectral_norm.eps
discriminator.channels discriminator.context discriminator.context_resolutions discriminator.init
discriminator.hamburger.rank discriminator.spectral_norm.eps
data.source data.split data.num_classes data.flip data.prefetch
train.total_kimg train.batch_size train.accumulation train.discriminator_steps train.loss train.generator_lr
train.discriminator_lr train.lr_schedule train.beta1 train.beta2 train.adam_eps train.adam_eps_placement
train.orthogonal_regularisation train.r1_gamma train.r2_gamma train.lecam train.lecam_decay train.mode_seeking
train.augment train.ema_decay train.ema_start_kimg train.precision train.tf32 train.compile train.threads
train.lr_warmup_kimg train.beta2_schedule train.gamma_schedule train.augment_probability train.augment_schedule
train.finite_differences.enabled train.finite_differences.sigma train.finite_differences.stride
train.power_averages checkpoint.averages_every_kimg train.top_k_schedule train.init_from train.top_k
discriminator.last_layer
train.consistency.real train.consistency.fake train.consistency.latent train.consistency.spread train.consistency.sigma
train.consistency.transform
log.every_kimg log.samples_every_kimg log.sample_classes log.samples_per_class log.tracker log.project log.artifact
checkpoint.every_kimg checkpoint.keep_last checkpoint.keep_best checkpoint.milestone_kimg
eval.every_kimg eval.metrics eval.num_samples eval.reference eval.features eval.batch_size eval.batch_norm
""",
)
OPTIONS = {
    "sample": "classes seeds truncation output scale device per-class interpolate frames fps sheets "
    "batch-norm batch-size no-ema force",
    "invert": "images output classes steps restarts samples pixels-only seed device force",
    "export": "output push private license",
    "demo_app": "port host",
}
"""Options of the scripts, besides --help and --checkpoint."""

Script = Callable[..., tuple[int, str]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Script]:
    """Run ``scripts/NAME.py`` with arguments in this process; return its exit code and what it printed."""

    def call(name: str, *arguments: object) -> tuple[int, str]:
        forget_accelerator()
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    yield call
    forget_accelerator()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_small(tmp_path_factory.mktemp("run"), "train.total_kimg=0.008")


def assert_sentence(outcome: tuple[int, str], code: int, message: str) -> None:
    assert outcome[0] == code, outcome[1]
    lines = [line for line in outcome[1].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, outcome[1]
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in outcome[1]


def test_no_key_of_a_configuration_has_gone() -> None:
    assert set(KEYS) - set(known_keys()) == set()


def test_the_options_of_the_scripts_stay(script: Script) -> None:
    code, text = script("train", "--help", "all")
    assert code == 0
    options = set(re.findall(r"--[a-z][\w.]*", text))
    assert {f"--{key}" for key in KEYS} | {"--config", "--print_config"} <= options
    for name, expected in OPTIONS.items():
        code, text = script(name, "--help")
        assert code == 0
        wanted = {"--help", "--checkpoint"} | {f"--{option}" for option in expected.split()}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) == wanted, name


def parameters(function: Callable[..., object]) -> dict[str, object]:
    """Return the names of the positional parameters, with their defaults."""
    items = inspect.signature(function).parameters.values()
    return {
        item.name: item.default for item in items if item.kind is item.POSITIONAL_OR_KEYWORD and item.name != "self"
    }


def test_the_public_signatures_stay() -> None:
    """Check that calls which work today keep working."""
    required = inspect.Parameter.empty
    expected: dict[Callable[..., object], dict[str, object]] = {
        hamgan.load_config: {"path": required, "overrides": None},
        hamgan.build_networks: {"config": required},
        hamgan.Generator.forward: {"z": required, "labels": required, "bases": None},
        hamgan.Discriminator.forward: {"images": required, "labels": required, "bases": None},
        hamburger.nmf: {"x": required, "bases": required, "steps": 6, "gradient": "one_step"},
        hamburger.vq: {"x": required, "bases": required, "steps": 6, "gradient": "one_step"},
        hamburger.cd: {"x": required, "bases": required, "steps": 6, "gradient": "one_step"},
        hamgan.load_generator: {"path": required, "device": None, "dtype": None},
        hamgan.LoadedGenerator.__call__: {"seeds": required, "classes": required, "truncation": 1.0, "output": "pil"},
        hamgan.evaluate: {
            "samples": required,
            "reference": required,
            "metrics": ("fid", "is"),
            "features": "inception",
        },
        hamgan.train: {"config": required},
        convert.biggan_pytorch: {"state_dict": required},
        convert.hamgan_tf: {"variables": required},
    }
    for function, wanted in expected.items():
        found = list(parameters(function).items())
        assert found[: len(wanted)] == list(wanted.items()), function.__qualname__
        assert all(default is not required for _, default in found[len(wanted) :]), function.__qualname__


def picture_folder(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--train.batchsize", "8"], 2, "unknown key `train.batchsize` in the command line; did you mean"),
        (["--train.batch_size", "many"], 2, r"train\.batch_size"),
        (["--train.accumulation", "3"], 2, "batch_size 8 does not divide into train.accumulation 3 parts"),
        (
            ["--config", "configs/photoz.yaml"],
            2,
            "no configuration file at configs/photoz.yaml; did you mean `configs/photos",
        ),
        (["--data.source", "PLACE/missing"], 2, "no data source `.*missing`"),
        (["--data.source", "phots"], 2, "did you mean `photos`"),
        (["--data.source", "PLACE/empty"], 2, "holds no pictures; put each class's pictures in a folder of its own"),
        (["--data.source", "PLACE/single"], 2, "has one class only: all 3 images are `cats`"),
        (["--data.source", "PLACE/hollow"], 2, r"1 of 3 classes have no images \(`dogs`\)"),
        (["--run_dir", "PLACE/foreign"], 2, "is not empty and holds no run"),
        (["--run_dir", "PLACE/file/run"], 1, "Not a directory|File exists"),
    ],
)
def test_training_explains_what_it_cannot_use(
    script: Script, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    place = tmp_path / "place"
    picture_folder(place / "single", cats=3)
    picture_folder(place / "hollow", cats=3, dogs=0, mice=2)
    for name in ("empty", "foreign"):
        (place / name).mkdir()
    (place / "foreign/thesis.txt").touch()
    (place / "file").touch()
    before = sorted(place.rglob("*"))
    config = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run"]
    outcome = script("train", *config, *(item.replace("PLACE", str(place)) for item in arguments))
    assert_sentence(outcome, code, message)
    assert not (tmp_path / "run").exists()
    assert sorted(place.rglob("*")) == before


def test_training_asks_for_a_configuration(script: Script, run_folder: Path) -> None:
    outcome = script("train", "--run_dir", run_folder)
    assert_sentence(outcome, 2, f"--config is missing: .* photos, .*; to resume .* --config {run_folder}/config")


def test_training_refuses_a_folder_of_another_run(script: Script, run_folder: Path) -> None:
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    code, text = script("train", "--config", run_folder / "config.yaml", "--run_dir", run_folder, "--seed", 5)
    assert code == 2
    assert "holds a run with another configuration:\n  key   in the folder  now\n  seed  0              5\n" in text
    assert "Traceback" not in text
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_training_on_a_folder_of_pictures_ends_with_code_0(script: Script, tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", cats=5, dogs=4)
    (data / "cats/notes.txt").write_text("no picture")
    options = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run", "--data.source", data]
    code, text = script("train", *options, "--train.total_kimg", "0.008")
    assert code == 0, text
    assert "9 images at 32 px, 2 classes\nclasses   cats 5, dogs 4\nleft out  1 .txt\n" in text
    assert hamgan.load_generator(tmp_path / "run").class_names == ["cats", "dogs"]


def test_a_run_that_diverges_ends_with_code_1(script: Script, tmp_path: Path) -> None:
    options = ["--config", write_config(tmp_path), "--run_dir", tmp_path / "run"]
    assert_sentence(
        script("train", *options, "--train.discriminator_lr", "1e38"), 1, "not finite at 0.008 kimg; there is no"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--checkpoint", "PLACE/none"], 1, "there is no checkpoint at .*none"),
        (["--checkpoint", "PLACE/folder"], 1, "neither a run nor a checkpoint"),
        (["--checkpoint", "PLACE/garbage.safetensors"], 1, "not a readable safetensors file"),
        (["--checkpoint", "PLACE/truncated.safetensors"], 1, "not a readable safetensors file"),
        (["--checkpoint", "PLACE/cut"], 1, "state.safetensors is damaged"),
        (["--classes", "15"], 2, "class 15 is out of range; there are classes 0 to 11"),
        (["--classes", "kat"], 2, "no class is called 'kat'; nearest: cat"),
        (["--classes", "5-2"], 2, "class range '5-2' runs backwards; write 2-5"),
        (["--seeds", "9-1"], 2, "seed range '9-1' runs backwards; write 1-9"),
        (["--seeds", "x"], 2, "seed range 'x': give numbers and ranges"),
        (["--truncation", "0"], 2, "truncation is 0.0; it must be above 0"),
        (["--scale", "0"], 2, "scale is 0; it must be 1 or more"),
        (["--device", "cuda:99"], 2, "device cuda:99 cannot be used"),
        (["--output", "PLACE/taken.png"], 2, "taken.png exists already; choose another --output"),
        (["--output", "PLACE/folder"], 2, "folder exists already"),
        (["--output", "PLACE/grid.jpg"], 2, "sheets are written as .png"),
        (["--output", "PLACE/taken.png/grid.png"], 2, "taken.png is a file, not a folder; choose another --output"),
    ],
)
def test_sampling_explains_what_it_cannot_use(
    script: Script, run_folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    weights = (run_folder / "generator.safetensors").read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").touch()
    (tmp_path / "garbage.safetensors").write_bytes(b"\xff" * 1000)
    (tmp_path / "truncated.safetensors").write_bytes(weights[: len(weights) // 2])
    checkpoint = run_folder / "checkpoints/00000000.008"
    (tmp_path / "cut/checkpoints/00000001").mkdir(parents=True)
    (tmp_path / "cut/config.yaml").write_bytes((run_folder / "config.yaml").read_bytes())
    for name, size in (("state.safetensors", 5000), ("state.json", None)):
        (tmp_path / "cut/checkpoints/00000001" / name).write_bytes((checkpoint / name).read_bytes()[:size])
    (tmp_path / "taken.png").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    given = [item.replace("PLACE", str(tmp_path)) for item in arguments]
    options = {"--checkpoint": run_folder, "--seeds": "0-1", "--output": tmp_path / "new.png"} | dict([given])
    if given[0] == "--checkpoint" and given[1].endswith("cut"):
        options["--checkpoint"] = tmp_path / "cut/checkpoints/00000001"
    outcome = script("sample", *(item for pair in options.items() for item in pair))
    assert_sentence(outcome, code, message)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_sampling_draws_classes_by_name_range_and_index(script: Script, run_folder: Path, tmp_path: Path) -> None:
    options = ["--checkpoint", run_folder, "--seeds", "0-1,7", "--classes", "cat", "3,5-6"]
    code, text = script("sample", *options, "--output", tmp_path / "images")
    assert (code, text.splitlines()[-1]) == (0, f"wrote 12 images to {tmp_path / 'images'}")
    names = {path.stem for path in (tmp_path / "images").iterdir()}
    assert names == {f"{label:04d}-seed{seed:06d}" for label in (2, 3, 5, 6) for seed in (0, 1, 7)}
