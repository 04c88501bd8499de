"""Test the files that go with a shared generator, and the way to a hub and back; test_formats.py has other formats."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image
from support.local_hub import READ_ONLY, TOKEN, LocalHub, local_hub
from support.small_runs import environment, run_small

from hamgan import LoadedGenerator, load_generator, save_pretrained
from hamgan.checkpoint import load_generator_file, save_generator
from hamgan.checkpoint.tensors import read_tensors
from hamgan.checkpoint.warm_start import initialise_from
from hamgan.errors import CheckpointError, ConfigError
from hamgan.evaluation.report import append_row
from hamgan.networks import build_networks
from hamgan.sampling.hub import download
from hamgan.sharing.card import model_card
from hamgan.sharing.command import main
from hamgan.sharing.public import public_config, public_evaluation, public_name

EVALUATION = [
    "eval.every_kimg=0.04",
    "eval.metrics=[fid,class_accuracy]",
    "eval.num_samples=8",
    "eval.reference_samples=8",
    "eval.features=efficientnet-lite0",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of a few steps with one evaluation, at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES", 60)
        patch.setattr("hamgan.evaluation.by_extractor.TRAIN_IMAGES_PER_CLASS", 5)
        return run_small(tmp_path_factory.mktemp("secret"), *EVALUATION)


@pytest.fixture
def generator(run: Path) -> LoadedGenerator:
    return load_generator(run, "cpu")


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shared") / "my-photos"
    save_pretrained(load_generator(run, "cpu"), place, license="cc-by-4.0")
    return place


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def images(generator: LoadedGenerator) -> torch.Tensor:
    found: torch.Tensor = generator(seeds=range(6), classes=[0, 1, 2, 3, 4, 5], output="tensor")
    return found


def test_training_writes_its_evaluation_into_the_header(run: Path) -> None:
    header = json.loads(read_tensors(run / "generator.safetensors")[1]["evaluations"])
    assert header == rows(run)
    assert header[0]["kimg"] == 0.04
    assert header[0]["fid_efficientnet_lite0"] > 0
    assert "8 samples" in header[0]["protocol"]


def test_a_run_tells_of_evaluations_that_are_newer_than_its_file(run: Path, tmp_path: Path) -> None:
    own = rows(run)[0]
    other = own | {"protocol": "another", "class_table_efficientnet_lite0": ["long"]}
    strangers: list[dict[str, Any]] = [{"kimg": 0.016}, {"ema": False}, {"batch_norm": "standing"}, {"protocol": None}]
    lines = [own | {"protocol": f"{change}"} | change for change in strangers] + [other]
    lines += [{key: own[key] for key in ("kimg", "ema", "batch_norm", "protocol")} | {"kid": 0.5}]
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("generator.safetensors", "config.yaml", "results.jsonl"):
        (copy / name).write_bytes((run / name).read_bytes())
    with (copy / "results.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines) + '{"kimg": 0.0')
    for place in (copy, copy / "generator.safetensors"):
        found = load_generator(place, "cpu").evaluations
        assert found == [own | {"kid": 0.5}, own | {"protocol": "another"}]
    (copy / "generator.safetensors").rename(tmp_path / "alone.safetensors")
    assert load_generator(tmp_path / "alone.safetensors", "cpu").evaluations == [own]


def test_a_row_behind_half_a_line_is_not_lost(run: Path, tmp_path: Path) -> None:
    (row,) = rows(run)
    for before in ("", "{}\n", '{"kimg": 0.0'):
        file = tmp_path / "results.jsonl"
        file.write_text(before)
        append_row(row, file)
        assert json.loads(file.read_text().splitlines()[-1]) == row


def test_weights_that_were_not_measured_have_no_evaluation(run: Path) -> None:
    assert load_generator(run, "cpu", average=False).evaluations == []
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert [len(load_generator(path, "cpu").evaluations) for path in checkpoints[-2:]] == [0, 1]


def test_a_folder_gives_the_same_images_to_the_bit(generator: LoadedGenerator, folder: Path) -> None:
    found = load_generator(folder, "cpu")
    assert torch.equal(images(found), images(generator))
    assert (found.class_names, found.kimg) == (generator.class_names, 0.04)
    assert (found.is_average, found.batch_norm, found.header) == (True, "ema", {})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "generator.safetensors", "sheet.png"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_keeps_whose_weights_and_statistics_they_are(run: Path, tmp_path: Path) -> None:
    standing = load_generator(run, "cpu", average=False).with_standing_statistics(batch_size=4)
    save_pretrained(standing, tmp_path / "standing")
    found = load_generator(tmp_path / "standing", "cpu")
    assert (found.is_average, found.batch_norm, found.evaluations) == (False, "standing", [])
    assert torch.equal(images(found), images(standing))
    with pytest.raises(ConfigError, match="G itself with running batch-norm statistics needs a run"):
        load_generator(tmp_path / "standing", "cpu", batch_norm="running")


def test_nothing_that_is_shared_names_a_place_of_this_machine(run: Path, folder: Path) -> None:
    place = str(run.parent).encode()
    assert place in (run / "generator.safetensors").read_bytes()
    for path in folder.iterdir():
        assert place not in path.read_bytes(), path
    places = ("/home/me/data/cats", "photos", "hf:owner/cats@small", "https://me:key@host/a/cats.tar?token=1", "a/b/")
    assert [public_name(place) for place in places] == ["cats", "photos", "hf:owner/cats@small", "cats.tar", "b"]


def test_lines_of_protocols_keep_their_numbers_and_lose_places(run: Path) -> None:
    line = "4 samples (truncation 0.5, 1.5 kimg); against {} val (8 images, hash 01)"
    row = rows(run)[0] | {"samples": ".", "protocol": line.format("/home/me/my data")}
    row |= {"reference": "/home/me/my data", "protocols": {"clip_fid": line.format("/home/me/my data") + "; CLIP"}}
    public = public_evaluation(row)
    assert (public["samples"], public["protocol"]) == (".", line.format("my data"))
    assert public["protocols"] == {"clip_fid": line.format("my data") + "; CLIP"}
    assert public_evaluation(row | {"reference": ".", "protocol": line.format(".")})["protocol"] == line.format(".")
    config = load_generator(run, "cpu").config
    config.data.selection = "/home/me/store-efficientnet-lite0-0.5.json"
    assert public_config(config).data.selection == "store-efficientnet-lite0-0.5.json"


def test_every_number_of_a_card_has_the_protocol_of_its_own_extractor(generator: LoadedGenerator) -> None:
    (row,) = generator.evaluations
    other = {"clip_fid": 3.5, "protocols": {"clip_fid": "8 samples; by CLIP"}}
    generator.evaluations = [row | other]
    card = ModelCard(model_card(generator, "me/mine"))
    assert isinstance(card.data, ModelCardData)
    protocols = {result.metric_type: result.metric_args for result in card.data.eval_results or []}
    assert protocols["clip_fid"] == {"protocol": "8 samples; by CLIP"}
    assert protocols["fid_efficientnet_lite0"] == {"protocol": row["protocol"]}
    assert "\n\nProtocol of CLIP-FID: 8 samples; by CLIP.\n" in card.text


def test_images_of_other_statistics_have_not_been_measured(generator: LoadedGenerator) -> None:
    assert generator.evaluations
    assert generator.with_standing_statistics(batch_size=4).evaluations == []
    assert generator.evaluations


def test_the_card_says_what_was_measured_and_nothing_else(run: Path, folder: Path) -> None:
    card, row = ModelCard.load(folder / "README.md"), rows(run)[0]
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], card.data.model_name) == ("cc-by-4.0", "hamgan", "my-photos")
    measured = {result.metric_type: result for result in card.data.eval_results or []}
    assert set(measured) == {"fid_efficientnet_lite0", "class_accuracy_efficientnet_lite0"}
    for key, result in measured.items():
        assert (result.metric_value, result.dataset_type, result.dataset_split) == (row[key], "photos", "val")
        assert result.metric_args == {"protocol": row["protocol"]}
    assert f"| FID (efficientnet-lite0) | {row['fid_efficientnet_lite0']:.5g} |" in card.text
    assert f"Protocol: {row['protocol']}." in card.text
    assert all(f"Note: {warning}." in card.text for warning in row["warnings"])
    assert "images seen by the discriminator: 40\n" in card.text
    assert "Hamburger v1 (NMF, rank 4) at 16x16" in card.text
    stored = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1])  # type: ignore[index]
    assert stored["generator"]["hamburger"]["rank"] == 4
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.height > 12 * 96


def test_the_cards_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(code[1], names)
    assert [image.size for image in names["images"]] == [(32, 32)] * 8


def test_the_card_of_weights_without_figures_or_history_claims_none(generator: LoadedGenerator, tmp_path: Path) -> None:
    generator.evaluations, generator.class_names = [], None
    generator.header["converted_from"] = {"kind": "BigGAN-PyTorch"}
    save_pretrained(generator, tmp_path / "new")
    card = ModelCard.load(tmp_path / "new/README.md")
    assert (card.data.eval_results, card.data.license) == (None, "unknown")
    assert "no evaluation of these weights has been recorded" in card.text
    assert "converted from BigGAN-PyTorch; how they were trained is not recorded here" in card.text
    assert "Not stated." in card.text
    for claim in ("images seen", "learning rate", "generator_lr", "hinge", "photos", "astronaut"):
        assert claim not in card.text, claim


def test_a_folder_that_exists_is_left_alone(generator: LoadedGenerator, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("mine")
    with pytest.raises(ConfigError, match="taken exists already"):
        save_pretrained(generator, tmp_path / "taken")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"could not write .*file/inside"):
        save_pretrained(generator, tmp_path / "file/inside")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["file", "taken", "taken/mine"]


def test_folded_weights_start_a_run_with_the_same_images(folder: Path, generator: LoadedGenerator) -> None:
    network, _ = build_networks(replace(generator.config, seed=5))
    report = initialise_from({"generator": network}, folder)["generator"]
    assert report.new == []
    assert any(name.startswith("contexts.16") for name in report.loaded)
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = network.eval()(z, torch.arange(4)) - generator.network(z, torch.arange(4))
    assert difference.abs().max() < 0.05  # sigma is found by iteration, within a percent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluations": {"fid": 1.0}}, "not every evaluation has its protocol"),
        ({"evaluations": [{"fid": 1.0}]}, "not every evaluation has its protocol"),
        ({"ema": "yes"}, "ema is 'yes'"),
        ({"batch_norm": "mine"}, "batch_norm is 'mine'"),
        ({"folded": True}, "weights in .* do not fit its configuration: .*vector"),
    ],
)
def test_headers_that_make_no_sense_are_sentences(
    run: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    network, config, header = load_generator_file(run / "generator.safetensors")
    extra = {key: value for key, value in header.items() if key not in ("class_names", "kimg")} | change
    save_generator(tmp_path / "changed.safetensors", network, config, extra=extra)
    with pytest.raises(CheckpointError, match=message):
        load_generator(tmp_path / "changed.safetensors", "cpu")


@pytest.fixture(scope="module")
def hub(run: Path) -> Any:
    """Serve a hub with a published repository (by a process of its own), a gated one and one of something else."""
    with local_hub() as served:
        served.files |= {"owner/gated": {}, "owner/other": {"README.md": b""}}
        outcome = in_process(
            served, run, "scripts/export.py", "--checkpoint", str(run), "--push", "owner/photos", "--license", "mit"
        )
        assert outcome.stdout.splitlines()[-1] == f"published {served.address}/owner/photos"
        yield served


def in_process(
    hub: LocalHub, home: Path, *arguments: str, token: str = TOKEN, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, as huggingface_hub reads the hub's address once, when it is imported."""
    names = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hub"), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment() | names | more,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


LOAD = """
import hashlib, sys
import hamgan, hamgan.errors
generator = hamgan.load_generator("owner/photos", "cpu")
print(generator.source, len(generator.evaluations))
images = generator(seeds=range(6), classes=[0, 1, 2, 3, 4, 5], output="tensor")
print(hashlib.sha256(images.numpy().tobytes()).hexdigest())
attempts = [(hamgan.load_generator, dict(path=name)) for name in ("owner/gated", "owner/other", "owner/none", "a../b")]
attempts += [(hamgan.load_generator, dict(path="owner/photos", revision="v2"))]
push = lambda **arguments: hamgan.push_to_hub(generator, **arguments)
attempts += [(push, dict(repo_id="owner/photos", token=token)) for token in (sys.argv[1], "hf_bad")]
attempts += [(push, dict(repo_id="a b"))]
for function, arguments in attempts:
    try:
        function(**arguments)
    except hamgan.errors.CheckpointError as error:
        print(error)
"""


def test_a_published_generator_is_fetched_by_its_name(
    hub: LocalHub, generator: LoadedGenerator, tmp_path: Path
) -> None:
    assert sorted(hub.files["owner/photos"]) == ["README.md", "generator.safetensors", "sheet.png"]
    assert b'load_generator("owner/photos")' in hub.files["owner/photos"]["README.md"]
    assert b"license: mit" in hub.files["owner/photos"]["README.md"]
    outcome = in_process(hub, tmp_path, "-c", LOAD, READ_ONLY)
    assert outcome.returncode == 0, outcome.stderr
    source, digest, *sentences = outcome.stdout.splitlines()
    assert source == "owner/photos 1"
    assert digest == hashlib.sha256(images(generator).numpy().tobytes()).hexdigest()
    expected = [
        "owner/gated is gated; ask for access on that page",
        "owner/other has no generator.safetensors",
        "no repository is at .*owner/none, or it is private",
        "'a../b' is not the name of a repository",
        "owner/photos has no revision v2",
        "could not publish owner/photos: the token is not valid or may not write",
        "could not publish owner/photos: the token is not valid or may not write",
        "'a b' is not the name of a repository",
    ]
    assert len(sentences) == len(expected)
    for sentence, words in zip(sentences, expected, strict=True):
        assert re.search(words, sentence), sentence


PUSH = """
import sys
import hamgan, hamgan.errors
generator = hamgan.load_generator(sys.argv[1], "cpu")
for token in ("hf_writer", None):
    try:
        hamgan.push_to_hub(generator, "owner/photos", token=token)
    except hamgan.errors.CheckpointError as error:
        print(error)
"""


def test_without_a_network_or_a_token_there_is_one_sentence(run: Path, tmp_path: Path) -> None:
    with local_hub() as hub:
        pass  # nothing answers at its address any more
    pushed = in_process(hub, tmp_path, "-c", PUSH, str(run), token="")
    assert pushed.stdout.splitlines() == [
        f"could not publish owner/photos: {hub.address} cannot be reached",
        "publishing needs an account on the hub: log in (hf auth login, or a token in $HF_TOKEN)",
    ]
    arguments = ["--checkpoint", "owner/photos", "--output", str(tmp_path / "new.onnx")]
    # Offline by word, which spares huggingface_hub's five attempts.
    loaded = in_process(hub, tmp_path, "scripts/export.py", *arguments, HF_HUB_OFFLINE="1")
    assert (loaded.returncode, loaded.stderr.splitlines()) == (
        1,
        [
            "error: there is no checkpoint at owner/photos, and the hub gives none: "
            f"{hub.address} cannot be reached, and no earlier download of owner/photos is here"
        ],
    )
    assert not (tmp_path / "new.onnx").exists()


def test_a_second_attempt_with_a_closed_client_is_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise what versions before 1.30 end in; the attempts themselves take 10 to 40 seconds."""
    client = httpx.Client()
    client.close()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: client.get("http://127.0.0.1:9"))
    with pytest.raises(CheckpointError, match=r"and the hub gives none: http\S+ cannot be reached$"):
        download("owner/photos")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to do: name --output"),
        (["--out", "PLACE/new"], "--out is called --output now"),
        (["--output", "PLACE/a.safetensors"], "models are written as .onnx or .pt2"),
        (["--output", "PLACE/taken.onnx"], "taken.onnx exists already"),
        (["--output", "PLACE"], "exists already"),
        (["--output", "PLACE/taken.onnx/a.onnx"], "taken.onnx is a file, not a folder"),
        (["--output", "PLACE/new", "--private"], "--private is for --push"),
        (["--output", "PLACE/new", "--checkpoint", "PLACE/none"], "there is no checkpoint at .*none"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(run: Path, tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "taken.onnx").write_bytes(b"mine")
    with pytest.raises((ConfigError, CheckpointError), match=message):
        main(["--checkpoint", str(run), *(item.replace("PLACE", str(tmp_path)) for item in options)])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("taken.onnx", b"mine")]
