"""The pages that are made from conf/ and docs/results: everything that can be chosen is there, every number is."""

from __future__ import annotations

import csv
import re
import shlex
from functools import cache
from pathlib import Path

import pages_leaderboard
import pages_papers
import pages_words
import pytest

from robode.cli.main import USAGE
from robode.config import schema
from robode.config.config import CONFIGS
from robode.config.listing import GROUPS, entries
from robode.config.paths import conf_dir
from robode.papers.selection import select
from robode.papers.spec import find_item

DOCS = Path(__file__).parents[2] / "docs"
WORDS = pages_words.pages()
FOUND = {(entry.where, entry.name): entry for entry in pages_leaderboard.entries(DOCS / "results")}


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_of_a_verb_is_on_the_page(verb: str) -> None:
    section = WORDS["verbs.md"].split(f"\n## robode {verb}\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| \[?`(\w+)`", section, re.M)) == set(schema.words(verb))


def test_every_verb_has_a_section() -> None:

    assert set(re.findall(r"^## robode (\w+)$", WORDS["verbs.md"], re.M)) == set(
        re.findall(r"^  ([a-z]+)  ", USAGE, re.M)
    )


@pytest.mark.parametrize("group", sorted(set(GROUPS.values()) - {"paper", "experiment"}))
def test_every_choice_is_on_the_page_of_its_group_and_says_what_it_is(group: str) -> None:
    page = WORDS[f"choices/{group.replace('/', '-')}.md"]
    for name, about in entries(group).items():
        assert about, f"conf/{group}/{name}.yaml has no first line that describes it"
        assert f"## {group}={name}\n" in page


def test_a_key_of_a_model_has_its_default_what_it_may_be_and_the_remark_of_its_file() -> None:
    page = WORDS["choices/model.md"].split("## model=chnode\n")[1].split("\n## ")[0]
    assert r"| `model.eta` | `0.1` | number in (0, 1) | epsilon = eta (1 - alpha^2) |" in page
    assert r"`model.activation` | `tanh` | tanh \| relu \| leaky_relu \| sigmoid \| softplus |" in page
    attack = WORDS["choices/suite.md"].split("## suite=attacks_quick\n")[1]
    assert "| `suite.fgsm_linf.eps` | `[0.05, 0.1]` | levels |" in attack


def test_every_published_report_has_a_page_and_every_item_a_line() -> None:
    pages = pages_papers.pages(DOCS)
    reports = {
        f"papers/{path.parent.parent.name}/{path.parent.name}.md" for path in DOCS.glob("results/*/*/report.json")
    }
    assert reports == set(pages) - {"papers/index.md"} and len(reports) > 30
    index = pages["papers/index.md"]
    assert "[`chnode_2022/table1`](chnode_2022/table1.md)" in index and "(not run)" in index
    line = "[`chnode_2022/table1-text`](chnode_2022/table1-text.md) | Table I: accuracy under noise (variant=text)"
    title = pages["papers/chnode_2022/table1-text.md"].splitlines()[0]
    assert line in index and title.endswith("(variant=text)")
    assert all(f"\n{name.removeprefix('papers/').removesuffix('.md')}\n" in index for name in reports)


def test_the_leaderboard_has_the_numbers_of_the_published_tables() -> None:
    with (DOCS / "results/robode/gap/table.csv").open(encoding="utf-8") as file:
        known = {(row["label"], row["column"]): row for row in csv.DictReader(file)}
    for label in ("ResNet", "gradient flow", "CH-NODE, etd"):
        cells = FOUND["robode/gap", label].cells
        for key, column in (
            (("clean", "", 0.0), "test"), (("attacked", "l2", 0.3), "robode ensemble .3"),
            (("certified", "l2", 0.3), "certified .3"), (("noise", "gaussian", 0.2), "Gauss .2"),
        ):  # fmt: skip
            row = known[label, column]
            assert cells[key].value == pytest.approx(float(row["mean"]), abs=1e-3), (label, column)
            assert cells[key].low == pytest.approx(max(float(row["t_low"]), 0), abs=1e-2)


def test_what_is_certified_is_never_above_what_attacks_leave_within_the_same_radius() -> None:
    pairs = [
        (entry.cells["certified", "l2", key[2]], cell) for entry in FOUND.values() for key, cell in entry.cells.items()
        if key[:2] == ("attacked", "l2") and ("certified", "l2", key[2]) in entry.cells
    ]  # fmt: skip
    same = [(proven, left) for proven, left in pairs if proven.about.split(", ")[-2:] == left.about.split(", ")[-2:]]
    assert len(same) > 30 and all(proven.value <= left.value + 1e-6 for proven, left in same)


def test_every_command_of_the_leaderboard_selects_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = cache(find_item)
    monkeypatch.setattr("robode.papers.selection.find_item", lambda where, folders: known(where))
    for entry in FOUND.values():
        program, verb, where, *words = shlex.split(entry.command)
        found = select(where, words)
        variant = "-text" if "variant=text" in words else ""
        assert (program, verb, where + variant) == ("robode", "reproduce", entry.where)
        assert found.rows == (entry.name,) and entry.name in [row.name for row in found.item.rows]


def test_a_row_names_the_weights_of_each_seed() -> None:
    board = pages_leaderboard.pages(DOCS)["leaderboard.md"]
    entry = FOUND["robode/gap", "CH-NODE, etd"]
    assert len(entry.weights) == entry.seeds == 3
    assert f"<summary>digests</summary><code>{' '.join(sorted(entry.weights))}</code>" in board


def test_every_family_on_images_has_a_row() -> None:
    """Families of published rows, among those that conf/model has."""
    shown = {entry.family for entry in FOUND.values()}
    assert shown <= set(entries("model")) and len(shown) >= 12
    assert (conf_dir() / "model").is_dir()
