"""README, --help, conf and the committed results say the same thing."""

import csv
import re
from pathlib import Path

import pytest
from pages import README, ROOT, blocks, commands

from robode.runs.results import COLUMNS, NUMBERS

TEXT = README.read_text(encoding="utf-8")
MAKE = sorted(set(re.findall(r"\bmake ([a-z]+)", TEXT)) - {"and"})
PATHS = {path for page in ("README.md", "docs/architecture.md", "docs/own_family.md", "docs/files.md")
         for path in re.findall(r"[`(]((?:docs|bench|tests|src|conf|scripts)/[\w./-]+)[`)]",
                                (ROOT / page).read_text(encoding="utf-8"))}  # fmt: skip
FILES = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
GAP = ROOT / "docs" / "results" / "robode" / "gap" / "table.csv"
HEADLINE = {"clean": "test", "Gauss, variance .2": "Gauss .2", "attacked .3": "robode ensemble .3",
            "certified .3": "certified .3"}  # fmt: skip


def test_there_is_something_to_check() -> None:
    assert len(commands(README, "bash")) >= 5 and {"run", "test", "smoke", "docs"} <= set(MAKE) and len(PATHS) > 10


@pytest.mark.parametrize("target", MAKE)
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_it_stays_short() -> None:
    assert len(TEXT.splitlines()) <= 180 and len(TEXT.split()) <= 2700


def test_the_headline_numbers_are_those_of_the_committed_table() -> None:
    known = {(row["label"], row["column"]): float(row["mean"]) for row in csv.DictReader(GAP.open(encoding="utf-8"))}
    head, _, *rows = re.findall(r"^\|(.*)\|$", TEXT.split("## What it finds")[1].split("\n## ")[0], re.M)
    _, *columns = [cell.strip() for cell in head.split("|")]
    assert columns == list(HEADLINE) and len(rows) >= 5
    for row in rows:
        label, *cells = [cell.strip() for cell in row.split("|")]
        assert cells == [f"{known[label, HEADLINE[column]]:.1f}" for column in columns], label


def test_the_files_of_a_run_are_the_ones_that_exist() -> None:
    """Names in the table of docs/files.md are written by the package (searched in its source)."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/robode").rglob("*.py"))
    table = FILES.split("\n## ")[0]
    for name in re.findall(r"`([a-z_]+\.(?:csv|json|yaml|html))`", table):
        assert f'"{name}"' in source, name


@pytest.mark.parametrize(
    ("heading", "columns"), [("results.csv", {*COLUMNS, "epoch"}), ("numbers.csv", {*NUMBERS.columns})]
)
def test_the_columns_of_the_tables_are_all_explained(heading: str, columns: set[str]) -> None:
    section = FILES.split(f"\n## {heading}")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.M)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == columns


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [block.text for block in blocks(README) if block.language == "python"]
    assert shown
    names: dict[str, object] = {}
    for text in shown:
        exec(compile(text, "README.md", "exec"), names)
    assert Path("outputs/default/first/report.html").is_file()
