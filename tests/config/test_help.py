"""Check the help of a configuration: few keys first, all of them on request, by section or by name."""

import re

import pytest

from hamgan.config import flat_config, known_keys
from hamgan.config.help import FIRST, asked_topic, help_text
from hamgan.config.schema import Config
from hamgan.errors import ConfigError
from hamgan.training.command import train_parser


def keys_in(text: str) -> set[str]:
    return set(re.findall(r"^ +--([a-z]\w*(?:\.\w+)*)", text, re.MULTILINE)) & set(known_keys())


def test_the_first_help_fits_on_two_screens_and_names_every_section() -> None:
    text = help_text(train_parser("hamgan train"), "")
    assert len(text.splitlines()) < 70
    assert keys_in(text) == set(FIRST)
    sections = {key.partition(".")[0] for key in flat_config(Config()) if "." in key}
    assert set(re.findall(r"^  (\w+)\. +\d+ keys", text, re.MULTILINE)) == sections


def test_all_keys_are_explained_on_request() -> None:
    text = help_text(train_parser("hamgan train"), "all")
    assert keys_in(text) == set(flat_config(Config()))
    assert {"--config", "--dry-run", "--override-resume"} <= set(re.findall(r"--[a-z-]+", text))
    assert "Images per optimiser step, over all processes and accumulation steps. (default: 256)" in " ".join(
        text.split()
    )


@pytest.mark.parametrize("topic", ["log.", "log", "--log."])
def test_a_section_is_explained_alone(topic: str) -> None:
    expected = {key for key in flat_config(Config()) if key.startswith("log.")}
    assert keys_in(help_text(train_parser("hamgan train"), topic)) == expected


def test_a_key_is_explained_alone_with_what_it_takes() -> None:
    text = help_text(train_parser("hamgan train"), "train.loss")
    assert keys_in(text) == {"train.loss"}
    assert "--train.loss hinge|non_saturating|wasserstein|relativistic" in text


def test_a_topic_that_is_none_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown key `trian` in --help; did you mean `train`"):
        help_text(train_parser("hamgan train"), "trian")


@pytest.mark.parametrize(
    ("arguments", "topic"),
    [
        ("--config photos", None),
        ("--help", ""),
        ("-h", ""),
        ("--config photos --help", ""),
        ("--help --seed 1", ""),
        ("--help all", "all"),
        ("--help=train.", "train."),
        ("--seed 1 --help train.", "train."),
    ],
)
def test_the_word_behind_help_is_the_topic(arguments: str, topic: str | None) -> None:
    assert asked_topic(arguments.split()) == topic
