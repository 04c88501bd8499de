"""Check the documents against the repository: links, commands and their options, modules, the order of rooms."""

import ast
import contextlib
import functools
import importlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from support.paths import ROOT
from test_examples import NOTEBOOKS, code_cells

import hamgan
from benchmarks.command import main as benchmarks_main
from hamgan.cli import COMMANDS
from hamgan.config import load_config
from hamgan.networks import build_networks, count_parameters
from hamgan.segmentation.command import COMMANDS as SEGMENT_COMMANDS

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LINKING = [*DOCUMENTS, ROOT / "CHANGELOG.md"]
SUBCOMMANDS = {
    "evaluate": ("reference", "sweep", "compare", "neighbours"),
    "prepare": ("inspect", "merge"),
    "segment": tuple(SEGMENT_COMMANDS),
}
CONFIGURED = {"train", "cost", "demo", "inspect"}
"""Commands that take all keys of a configuration, and list them after ``--help all``."""
OTHER_PROGRAMS = {"--max-restarts", "--multi_gpu", "--num_processes", "--cpu", "--entrypoint", "--long", "--lowest"}
"""Options of `accelerate launch`, of Docker and of the tests that the text mentions."""
PLACEHOLDERS = {"my.yaml"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def inline_code(document: Path) -> list[str]:
    """Return all texts between single backticks outside of code blocks."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def command_lines(document: Path) -> list[list[str]]:
    """Return the words of every line of the shell blocks; lines that end with a backslash are joined."""
    text = "".join(blocks(document, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@functools.cache
def options_of(command: str, *more: str) -> frozenset[str]:
    """Return the options in the help of a command of `hamgan`, or of ``benchmarks``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        if command == "benchmarks":
            benchmarks_main([*more, "--help"])
        else:
            everything = ["all"] if CONFIGURED & {command, *more} else []
            importlib.import_module(COMMANDS[command][0]).main([*more, "--help", *everything], f"hamgan {command}")
    return frozenset(re.findall(r"--[a-zA-Z][\w.-]*", printed.getvalue())) | {"--help"}


def script_command(script: str) -> str:
    """Return the name of the command that a script such as ``scripts/train.py`` runs."""
    found = re.search(r'run_command\("(\w+)"\)', (ROOT / script).read_text())
    assert found, f"{script} runs no command"
    return found[1]


def used_command(words: list[str]) -> tuple[list[str], list[str]] | None:
    """Return the command of a line, with its subcommand, and the words behind it; None for lines of other programs."""
    script = next((position for position, word in enumerate(words) if re.fullmatch(r"scripts/\w+\.py", word)), None)
    if words[0] == "hamgan":
        name, rest = words[1], words[2:]
    elif words[:3] == ["python", "-m", "benchmarks"]:
        return ["benchmarks", words[3]], words[4:]
    elif script is not None:
        name, rest = script_command(words[script]), words[script + 1 :]
    else:
        return None
    if rest and f"{name} {rest[0]}" in COMMANDS:
        return [f"{name} {rest[0]}"], rest[1:]
    if rest and rest[0] in SUBCOMMANDS.get(name, ()):
        return [name, rest[0]], rest[1:]
    return [name], rest


def check_line(words: list[str]) -> None:
    """Fail for an unknown command, an unknown option, or a missing configuration."""
    used = used_command(words)
    if used is None:
        return
    command, rest = used
    line = " ".join(words)
    assert command[0] in {*COMMANDS, "benchmarks"}, f"`{line}`: no such command"
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    unknown = given - options_of(*command)
    assert not unknown, f"`{line}`: {' '.join(command)} has no {', '.join(sorted(unknown))}"
    for option, value in pairwise(rest):
        if option == "--config" and value not in PLACEHOLDERS:
            folder = "configs/segmentation" if command[0] == "segment" else "configs"
            assert (ROOT / value).is_file() or (ROOT / folder / f"{value}.yaml").is_file(), f"`{line}`: no {value}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1000


@pytest.mark.parametrize("document", LINKING, ids=lambda path: path.name)
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", document.read_text()):
        if "://" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{document.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document.name} links to {target}#{anchor}"


@each_document
def test_commands_in_blocks_are_known_and_so_are_their_options(document: Path) -> None:
    for words in command_lines(document):
        check_line(words)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_in_notebooks_are_known_and_so_are_their_options(notebook: Path) -> None:
    for cell in code_cells(notebook):
        for line in "".join(cell["source"]).replace("\\\n", " ").splitlines():
            if line.startswith("!"):
                check_line(shlex.split(line[1:]))


@each_document
def test_options_and_commands_in_the_text_exist(document: Path) -> None:
    known = OTHER_PROGRAMS.union(*(options_of(name) for name in COMMANDS))
    for name, more in SUBCOMMANDS.items():
        known = known.union(*(options_of(name, sub) for sub in more))
    known = known.union(*(options_of("benchmarks", name) for name in ("train", "evaluate", "recipe", "segment", "gpu")))
    for code in inline_code(document):
        for option in re.findall(r"(?<!\S)--[a-zA-Z][\w.-]*", code):
            assert option in known, f"{document.name}: `{code}`"
        if code.startswith("hamgan "):
            assert code.split()[1] in COMMANDS, f"{document.name}: `{code}`"


@each_document
def test_python_blocks_use_names_that_exist(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hamgan":
                assert hasattr(hamgan, node.attr), f"{document.name}: hamgan.{node.attr}"


@each_document
def test_files_and_folders_that_are_named_exist(document: Path) -> None:
    pattern = r"(?:hamgan|tests|scripts|configs|benchmarks|examples|docs)/[\w./-]*"
    for code in inline_code(document):
        for path in re.findall(rf"^{pattern}$", code):
            assert (ROOT / path).exists(), f"{document.name}: `{path}`"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_names_of_functions_and_fields_occur_in_the_code(name: str) -> None:
    folders = [ROOT / folder for folder in ("hamgan", "tests", "scripts", "configs", "benchmarks")]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".yaml")]
    words = set(re.findall(r"\w+", "\n".join(file.read_text() for file in files if file.name != Path(__file__).name)))
    for code in inline_code(ROOT / name):
        for word in code.split(".") if re.fullmatch(r"\w+(\.\w+)*", code) else ():
            assert word in words, f"{name}: `{code}`"


def test_readme_lists_all_configurations_with_their_parameters() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+ / [\d,]+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert set(rows) == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    for name, counts in rows.items():
        config = load_config(ROOT / f"configs/{name}.yaml")
        embedded = {"photos": 12, "fashion": 9}
        config.data.num_classes = config.data.num_classes or embedded[config.data.source]
        with torch.device("meta"):
            networks = build_networks(config)
        assert counts == " / ".join(f"{count_parameters(network):,}" for network in networks), name


@functools.cache
def rooms() -> list[str]:
    """Return the rooms of the table in architecture.md, from low to high."""
    text = (ROOT / "docs/architecture.md").read_text()
    return [Path(path).stem for path in re.findall(r"^\| `hamgan/([\w.]+)/?` \|", text, re.MULTILINE)]


def imports(room: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file of a room with each other room that it imports, wherever the import stands."""
    for file in sorted(room.rglob("*.py")) if room.is_dir() else [room]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            others = [name.split(".")[1] for name in names if name.startswith("hamgan.")]
            yield from ((file, other) for other in others if other in rooms())


def test_architecture_names_every_room() -> None:
    inside = {path.stem for path in (ROOT / "hamgan").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert sorted(rooms()) == sorted(inside - {"__init__", "__main__", "__pycache__"})


def test_rooms_import_only_rooms_before_them() -> None:
    order = rooms()
    for position, name in enumerate(order):
        folder = ROOT / "hamgan" / name
        for file, other in imports(folder if folder.is_dir() else folder.with_suffix(".py")):
            later = order[position + 1 :]
            assert other not in later, f"{file.relative_to(ROOT)} imports hamgan.{other}, which stands after {name}"


def test_citation_names_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert len(citation["preferred-citation"]["authors"]) == 6
