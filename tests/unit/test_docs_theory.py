"""docs/theory.md and docs/architecture.md say what the code is: what they name exists, and what cites them is there."""

import ast
import io
import pkgutil
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import robode

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
SOURCE = Path(robode.__file__).parent
ROOMS = {file.stem for file in SOURCE.glob("*.py")} | {file.parent.name for file in SOURCE.glob("*/__init__.py")}
CODE = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)+)`")
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
CITED = re.compile(r"docs/theory\.md,\s+(?:#\s+)?sections?\s+([\d, toand]*\d)")


@cache
def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sections() -> dict[int, str]:
    """Number -> text of the sections of docs/theory.md."""
    parts = re.split(r"^## (\d+)\. ", page("theory.md"), flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def named(text: str) -> set[str]:
    """The dotted names of code in a page, from robode on; file names and keys of the command line are no code."""
    dotted = {name for name in CODE.findall(text) if name.partition(".")[0] in ROOMS}
    return {name for name in dotted if not name.endswith((".md", ".py", ".yaml"))}


def resolved(name: str) -> object:
    return pkgutil.resolve_name(f"robode.{name}")


@pytest.mark.parametrize("name", ["theory.md", "architecture.md"])
def test_every_name_of_code_in_a_page_exists(name: str) -> None:
    names = named(page(name))
    assert len(names) > 10
    missing = []
    for each in sorted(names):
        try:
            resolved(each)
        except (ImportError, AttributeError):
            missing.append(each)
    assert not missing


def test_a_name_that_does_not_exist_would_be_found() -> None:
    assert named("see `ode.bounds.h_star` and `metrics.csv`") == {"ode.bounds.h_star"}
    for name in ("ode.bounds.h_sun", "ode.moon.h_star"):
        with pytest.raises((ImportError, AttributeError)):
            resolved(name)


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_in_the_page_exists_and_every_section_of_theorems_has_one() -> None:
    for number, text in sections().items():
        found = TEST.findall(text)
        assert found, f"section {number} names no test"
        for file, test in found:
            places = [folder / file for folder in (TESTS / "theorems", TESTS / "unit") if (folder / file).is_file()]
            assert places, f"section {number}: no {file}"
            assert any(test in functions(place) for place in places), f"section {number}: no {file}::{test}"


def test_every_file_of_theorem_tests_has_a_place_in_the_page() -> None:
    files = {file.name for file in (TESTS / "theorems").glob("test_*.py")}
    assert not files - {file for file, _ in TEST.findall(page("theory.md"))}


def cited(text: str) -> set[int]:
    """The sections of docs/theory.md that a text cites: "sections 3 to 8" are all six."""
    found: set[int] = set()
    for numbers in CITED.findall(text):
        parts = [int(each) for each in re.findall(r"\d+", numbers)]
        found |= set(range(parts[0], parts[-1] + 1)) if "to" in numbers else set(parts)
    return found


def test_what_the_source_cites_names_it_in_turn() -> None:
    """A module that cites a section is named there, or a module of its room is."""
    assert cited("(docs/theory.md, section 7) and docs/theory.md, sections\n14 and 15.") == {7, 14, 15}
    assert cited("docs/theory.md, sections 3 to 5") == {3, 4, 5}
    count = 0
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for number in cited(text):
            count += 1
            assert number in sections(), f"{file.name} cites section {number}"
            assert any(name.startswith(f"{room}.") for name in named(sections()[number])), (
                f"section {number} ignores {room}"
            )
    assert count > 5


def test_what_a_test_cites_names_it_in_turn() -> None:
    for file in (TESTS / "theorems").glob("*.py"):
        for number in cited(file.read_text(encoding="utf-8")):
            assert f"`{file.name}::" in sections()[number], f"section {number} does not name {file.name}"


def words_for_readers(file: Path) -> Iterator[str]:
    """The docstrings of a module, and its comments, each with the lines of a block of them joined."""
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield " ".join((ast.get_docstring(node) or "").split())
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield " ".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)


@pytest.mark.slow
def test_no_docstring_or_comment_cites_a_private_note() -> None:
    """A source is a paper, a book or a section of docs/theory.md."""
    notes = re.compile(r"\bspecs\b|docs/theory\.md(?!, sections? \d)")
    files = [*SOURCE.rglob("*.py"), *(TESTS / "theorems").glob("*.py")]
    assert not [f"{file.name}: {words}" for file in files for words in words_for_readers(file) if notes.search(words)]
    assert notes.search("Source: specs, 8.1") and notes.search("(docs/theory.md)")


def test_every_room_has_a_line_in_the_page_and_every_line_a_room() -> None:
    """In the order of tests/contracts/test_rooms.py."""
    tree = ast.parse((TESTS / "contracts" / "test_rooms.py").read_text(encoding="utf-8"))
    order = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ORDER"
    )
    text = page("architecture.md").partition("## The rooms")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    lines = [re.findall(r"`(\w+)`", row) for row in rows]
    assert [room for line in lines for room in line] == [room for level in order for room in level]
    assert {room for level in order for room in level} == {room for room in ROOMS if room != "__init__"}
