"""Test reading and checking configurations: accepted values, and the sentence for every other one."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hamgan.config import (
    Config,
    check_keys,
    config_from_dict,
    config_parser,
    config_to_dict,
    known_keys,
    latent_chunks,
    load_config,
    parse_config,
    save_config,
)
from hamgan.config.reading import load_stored_config
from hamgan.errors import ConfigError
from hamgan.segmentation.config import SEGMENTATION


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_set_fields_and_the_last_one_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {generator_lr: 1e-3, batch_size: 64}\ngenerator: {context_resolutions: [32, 64]}\n")
    config = load_config(path, ["train.batch_size=128", "--data.source=photos", "discriminator.context=attention"])
    assert (config.train.generator_lr, config.train.batch_size) == (1e-3, 128)
    assert config.generator.context_resolutions == [32, 64]
    assert (config.data.source, config.discriminator.context) == ("photos", "attention")


def test_without_a_file_all_values_are_the_defaults() -> None:
    assert load_config(None) == Config()


def test_a_stored_configuration_comes_back_equal(tmp_path: Path) -> None:
    config = load_config(
        None, ["generator.hamburger.temperature=0.5", "data.num_classes=7", "train.augment=[color,cutout]"]
    )
    save_config(config, tmp_path / "stored.yaml")
    assert load_config(tmp_path / "stored.yaml") == config
    assert config_from_dict(config_to_dict(config)) == config
    assert [item.name for item in tmp_path.iterdir()] == ["stored.yaml"]


def test_every_field_is_documented_in_the_help() -> None:
    text = config_parser(prog="train.py").format_help()
    for key in known_keys():
        assert f"--{key} " in text or f"{key}:" in text or f"--{key}." in text, key
    assert "Images per optimiser step, over all processes and accumulation steps." in " ".join(text.split())


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.batchsize", "train.batch_size"),
        ("generator.hamburger.rnk", "generator.hamburger.rank"),
        ("batch_size", "train.batch_size` or `eval.batch_size"),
        ("train.adam_epsilon", "train.adam_eps"),
        ("epsilon_of_adam_eps", "train.adam_eps"),
        ("lr", "train.generator_lr` or `train.discriminator_lr"),
        ("train.lr", "train.generator_lr` or `train.discriminator_lr"),
        ("train.g_lr", "train.generator_lr"),
        ("discriminator_learning_rate", "train.discriminator_lr"),
        ("kimg", "train.total_kimg` or `train.lr_warmup_kimg` or `train.ema_start_kimg"),
        ("mirror", "data.flip"),
        ("wandb", "log.tracker"),
        ("image_size", "resolution"),
        ("model.num_classes", "data.num_classes"),
    ],
)
def test_an_unknown_key_names_the_nearest_ones(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key `{key}` in here; did you mean `{nearest}`\\?"):
        check_keys([key], "here")


def test_a_key_like_no_other_is_named_alone() -> None:
    with pytest.raises(ConfigError, match=r"unknown key `zzz` in here$"):
        check_keys(["zzz"], "here")


def test_unknown_keys_are_found_in_files_and_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  batchsize: 8\n")
    with pytest.raises(ConfigError, match=r"`train.batchsize` in .*config.yaml; did you mean `train.batch_size`"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"`train.batchsize` in the command line; did you mean `train.batch_size`"):
        parse_config(["--train.batchsize", "8"])
    # argparse alone would take an unambiguous beginning of an option for the option.
    with pytest.raises(ConfigError, match=r"unknown key `train.accumul`"):
        parse_config(["--train.accumul", "2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("- 1", "not a list"),
        ("train:", "`train` in .* is a section"),
        ("train: 5", "`train` in .* is a section"),
        ("generator: {hamburger: nmf}", "`generator.hamburger` in .* is a section"),
        ("name:", "`name` in .* has no value"),
        ("data: {source: null}", "`data.source` in .* has no value"),
        ("a: [", "is not valid YAML"),
        ("name: 2020-99-99", "is not valid YAML"),
        ("train: &x {batch_size: *x}", "is not valid YAML"),
        ("train: {batch_size: 2.5}", r"train\.batch_size.*int.*2\.5"),
        ("train: {augment: [colour]}", r"train\.augment.*colou?r"),
        ("train: {precision: fp8}", r"train\.precision.*'bf16', 'fp16', 'fp32'.*fp8"),
        ("generator: {context_resolutions: 64}", r"generator\.context_resolutions.*list.*64"),
    ],
)
def test_a_file_that_does_not_fit_gets_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "name: x")
    with pytest.raises(ConfigError, match=r"no configuration file at .*confg.yaml; did you mean `.*config.yaml`"):
        load_config(tmp_path / "confg.yaml")


def test_null_on_the_command_line_gets_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        parse_config(["--train.batch_size", "null"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=", "name is empty"),
        ("seed=-1", "seed is -1; allowed: 0 to"),
        ("resolution=96", "resolution is 96; allowed:"),
        ("generator.latent_dim=100", "has 6 equal chunks; take 96 or 102"),
        ("generator.conditioning=per_class", "hierarchical needs generator.conditioning: shared"),
        ("generator.context_resolutions=[48]", r"has 48; feature maps of this network are \[8, 16, 32, 64, 128\] px"),
        ("discriminator.context_resolutions=[128]", r"has 128; feature maps of this network are \[4, 8, 16, 32, 64\]"),
        ("generator.hamburger.rank=0", "generator.hamburger.rank is 0; it must be positive"),
        ("generator.hamburger.dual=true", r"dual needs generator.hamburger.version: v2\+"),
        ("discriminator.hamburger.momentum=1.5", "momentum is 1.5; allowed: 0 to 1"),
        ("generator.hamburger.temperature=0", "temperature is 0.0; it must be positive"),
        ("generator.hamburger.eval_steps=-1", "eval_steps is -1; it must be positive"),
        ("train.accumulation=3", "batch_size 256 does not divide into train.accumulation 3 parts"),
        ("train.total_kimg=.inf", "total_kimg is inf; it must be positive and finite"),
        ("train.generator_lr=-1e-4", "generator_lr is -0.0001; it must be positive"),
        ("generator.hamburger.eval_steps=0", "generator.hamburger.eval_steps is 0; it must be positive"),
        ("train.beta2=1", "beta2 is 1.0; allowed: 0 to below 1"),
        ("train.ema_decay=1", "ema_decay is 1.0; allowed: 0 to below 1"),
        ("train.r1_gamma=-1", "r1_gamma is -1.0; allowed: 0 and above"),
        ("train.lecam_decay=2", "lecam_decay is 2.0; allowed: 0 to below 1"),
        ("train.mode_seeking=-1", "mode_seeking is -1.0; allowed: 0 and above"),
        ("train.mode_seeking=1 train.loss=relativistic", "mode_seeking draws labels in pairs"),
        ("train.top_k=0", "top_k is 0.0; allowed: above 0 to 1"),
        ("train.threads=0", "threads is 0; it must be positive"),
        ("log.sample_classes=0", "sample_classes is 0; it must be positive"),
        ("data.num_classes=0", "num_classes is 0; it must be positive"),
        ("eval.num_samples=0", "num_samples is 0; it must be positive"),
        ("eval.reference_samples=-5", "reference_samples is -5; a covariance needs two at least"),
    ],
)
def test_values_that_do_not_fit_together_get_a_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, override.split())


def test_a_small_discriminator_has_no_4x4_map_for_a_context_block() -> None:
    small = ["resolution=32", "generator.latent_dim=16", "generator.context=none"]
    with pytest.raises(ConfigError, match=r"has 4; feature maps of this network are \[8, 16\] px"):
        load_config(None, [*small, "discriminator.context_resolutions=[4]"])
    load_config(None, [*small, "discriminator.context_resolutions=[8,16]"])


@pytest.mark.parametrize(("resolution", "chunks"), [(32, 4), (64, 5), (128, 6), (256, 7), (512, 8)])
def test_a_hierarchical_latent_has_a_chunk_per_block_and_one_for_the_start(resolution: int, chunks: int) -> None:
    assert latent_chunks(resolution) == chunks


KEYS = known_keys()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["hamburger", "nmf", "1e-4", "bf16", "photos", "v2+", "0x10"]),
    st.lists(st.integers(-4, 300), max_size=3),
    st.dictionaries(st.sampled_from([key.rsplit(".", 1)[-1] for key in KEYS]), st.integers(0, 9), max_size=2),
)


def nested(pairs: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {}) if isinstance(inner, dict) else {}
        if isinstance(inner, dict):
            inner[last] = value
    return values


def loads_or_explains(path: Path) -> None:
    """Check that a file gives a configuration with values of the right types, or else one `ConfigError`."""
    try:
        config = load_config(path)
    except ConfigError:
        return
    assert all(type(getattr(config.train, name)) is int for name in ("batch_size", "accumulation"))


FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(pairs=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_any_value_at_any_key_is_read_or_explained(tmp_path: Path, pairs: dict[str, Any]) -> None:
    loads_or_explains(write(tmp_path, yaml.safe_dump(nested(pairs))))


@FUZZ
@given(data=st.data())
def test_damaged_files_are_read_or_explained(tmp_path: Path, data: st.DataObject) -> None:
    original = Path("configs/hamgan_baby_imagenet128.yaml").read_bytes()
    start = data.draw(st.integers(0, len(original)))
    cut = data.draw(st.integers(0, 20))
    insert = data.draw(st.one_of(st.binary(max_size=8), st.text(": {}[]&*!-\n\t'\"|>%@", max_size=8).map(str.encode)))
    path = tmp_path / "damaged.yaml"
    path.write_bytes(original[:start] + insert + original[start + cut :])
    loads_or_explains(path)


def test_fields_of_the_configuration_hold_no_shared_defaults() -> None:
    first, second = Config(), Config()
    first.generator.context_resolutions.append(8)
    assert second.generator.context_resolutions == [64]
    assert dataclasses.asdict(second) == dataclasses.asdict(Config())


def test_a_key_of_an_earlier_version_is_refused_in_a_file_and_passed_over_in_a_run(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("train: {recompute: false, batch_size: 8}\n")
    with pytest.raises(ConfigError, match=r"`train.recompute` in .*old.yaml is no longer an option: feature maps are"):
        load_config(path)
    assert load_stored_config(path).train.batch_size == 8


@pytest.mark.parametrize("value", ["fid,kid", "[fid, kid]", "fid, kid"])
def test_lists_take_commas(value: str) -> None:
    assert load_config(None, [f"eval.metrics={value}"]).eval.metrics == ["fid", "kid"]
    config, _ = parse_config(["--eval.metrics", value, "--generator.context_resolutions", "16,32", "--seed", "3"])
    assert (config.eval.metrics, config.generator.context_resolutions, config.seed) == (["fid", "kid"], [16, 32], 3)


def test_options_override_a_file_that_stands_behind_them() -> None:
    config, _ = parse_config(["--name", "mine", "--train.batch_size=8", "--config", "photos", "--seed", "3"])
    assert (config.name, config.train.batch_size, config.seed) == ("mine", 8, 3)
    assert parse_config(["--config", "photos", "--config=fashion"])[0].name == "fashion"


def test_a_section_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("train:\n  batch_size: 8\nname: twice\ntrain:\n  ema_decay: 0.5\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml is not valid YAML: the key `train` stands twice .*line 4"):
        load_config(path)


def test_lists_that_may_be_null_take_commas_too() -> None:
    assert SEGMENTATION.parse(["--encoder.depths", "1,2,3,4"])[0].encoder.depths == [1, 2, 3, 4]
    assert SEGMENTATION.parse(["--encoder.depths", "null"])[0].encoder.depths is None


def test_a_list_may_be_empty_or_be_added_to() -> None:
    assert parse_config(["--train.augment="])[0].train.augment == []
    assert parse_config(["--train.augment", "color", "--train.augment+", "cutout"])[0].train.augment == [
        "color",
        "cutout",
    ]
    with pytest.raises(ConfigError, match=r"train\.augment.*colour"):
        parse_config(["--train.augment", "color,colour"])
