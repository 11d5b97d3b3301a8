"""Papers as YAML: what a file may say, and that ours says what the paper prints."""

import html
import json
import math
import re
from pathlib import Path

import pytest
import yaml

from robode.config.listing import options
from robode.errors import BadInput
from robode.papers.selection import REPORTS, select
from robode.papers.spec import find_item, items, load, read
from robode.report.layout import Column

RESULTS = Path(__file__).parents[2] / "docs" / "results"

# Table I, typed from the paper anew: N, network, then train, test, N(0, .05), N(0, .2), s&p .05, s&p .2
PRINTED = """
4 ResNet 98.91 97.01 63.00 52.56 59.8 42.02
4 H-DNN 94.68 94.60 31.12 26.65 30.52 23.83
4 CH-NODE 94.03 92.38 81.30 77.69 79.86 63.84
8 ResNet 99.12 97.28 32.99 30.56 30.27 28.11
8 H-DNN 95.30 95.17 60.8 49.88 61.15 45.62
8 CH-NODE 89.55 89.01 86.33 81.85 84.22 72.18
12 ResNet 99.11 96.86 39.13 34.04 41.04 29.80
12 H-DNN 95.36 95.23 26.79 23.53 27.48 22.75
12 CH-NODE 90.01 89.76 85.68 80.97 84.88 72.82
"""
ORDER = (
    Column("train", split="train", perturbation="clean"),
    Column("test", perturbation="clean"),
    Column("Gauss .05", perturbation="gaussian", severity=0.05, protocol="chnode_2022"),
    Column("Gauss .2", perturbation="gaussian", severity=0.2, protocol="chnode_2022"),
    Column("s&p .05", perturbation="salt_and_pepper", severity=0.05, protocol="chnode_2022"),
    Column("s&p .2", perturbation="salt_and_pepper", severity=0.2, protocol="chnode_2022"),
)


def test_table_1_is_printed_as_in_the_paper() -> None:
    item = find_item("chnode_2022/table1")
    assert tuple(item.columns.values())[:6] == ORDER
    models = {"ResNet": "resnet", "H-DNN": "hdnn", "CH-NODE": "chnode"}
    expected = {}
    for line in PRINTED.strip().splitlines():
        depth, network, *numbers = line.split()
        overrides = (f"model={models[network]}", f"depth={depth}")
        expected[overrides] = dict(zip([column.name for column in ORDER], map(float, numbers), strict=True))
    assert {row.overrides: dict(row.published) for row in item.rows if row.published} == expected
    assert [(row.group, len(row.seeds)) for row in item.rows if row.published][::3] == [
        ("N = 4", 10),
        ("N = 8", 3),
        ("N = 12", 3),
    ]
    assert [row.label for row in item.rows if not row.published] == ["ResNet + noise"] * 3


def test_the_other_printed_numbers() -> None:
    known = items()
    assert [row.published for row in known["chnode_2022/fig1"].rows if row.published] == [{"ε_r": 0.21}, {"ε_r": 0.7}]
    of_fig3 = [row for row in known["chnode_2022/fig3"].rows if row.published]
    assert len(of_fig3) == 2
    for row in of_fig3:
        assert sorted(row.published.values()) == [0.3214, 1.0, 99.12, 99.20]
    assert not any(
        row.published for name in ("tradeoff", "table1_discrete", "gamma") for row in known[f"chnode_2022/{name}"].rows
    )


@pytest.mark.parametrize("name", options("paper"))
def test_every_paper_tells_what_it_must(name: str) -> None:
    paper = load(name)
    assert paper.title and paper.citation and len(paper.differences) == len({each.about for each in paper.differences})
    for item in paper.items.values():
        assert item.paper.differences == paper.differences
        for row in item.rows:
            assert set(row.published) <= set(item.columns) and all(map(math.isfinite, row.published.values()))
        for size in item.sizes.values():
            assert size.name == "full" or size.label


def test_the_known_differences_of_the_chnode_paper_are_all_there() -> None:
    texts = " ".join(
        f"{each.about} {each.text} {each.experiment} {each.here}" for each in load("chnode_2022").differences
    )
    clues = """h = 0.1|h = 0.5|ResNet layer|1/sqrt(1 − α² − 1e-6)|γ = 0|normalised|[-1, 1]|N − 1 times|width 4|
        re-initialised|mean Jacobian|Eq. (12)|torch seed 1|no validation data|N(0, 1)|weight decay 4e-3|
        explicit Euler|rate ε|K⁻ᵀ|0.21 and 0.7|never failed"""
    for clue in clues.split("|"):
        clue = clue.strip()
        assert clue in texts, clue


def test_the_known_differences_of_the_lyanet_paper_are_all_there() -> None:
    texts = " ".join(
        f"{each.about} {each.text} {each.experiment} {each.here}" for each in load("lyanet_2022").differences
    )
    clues = """torchattacks 3.2.6|normalised already|cannot be proved|20/255 in all|adjoint|3/8 rule|dopri5|512 states|
        500 states|radius 15 √n|gain from 100 on|a mean; κ|e^(−10/9)|no gradient|running statistics|next piece of time|
        does not hold 0.01|β = 0.9|no weight decay|averaged weights|AutoAugment|one seed|toy prediction task|
        two circles|512 test images of CIFAR-100"""
    for clue in clues.split("|"):
        clue = clue.strip()
        assert clue in texts, clue


LYANET = """
    FashionMNIST ResNet18: 8.17 84.55 33.69
    FashionMNIST Continuous: 7.67 91.85 45.87
    FashionMNIST Continuous LyaNet: 7.18 93.96 46.54
    FashionMNIST Neural ODE: 8.66 77.9 29.85
    FashionMNIST LyaNet: 7.9 46.33 25.14
    CIFAR-10 ResNet18: 19.73 76.44 40.06
    CIFAR-10 Continuous: 13.12 88.79 41.53
    CIFAR-10 Continuous LyaNet: 12.99 91.03 39.82
    CIFAR-10 Neural ODE: 18.5 75.7 38.91
    CIFAR-10 LyaNet: 17.22 58.97 38.25
    CIFAR-100 ResNet18: 41.07 91.08 83.72
    CIFAR-100 Continuous: 35.96 97.12 80.34
    CIFAR-100 Continuous LyaNet: 35.81 97.77 78.68
    CIFAR-100 Neural ODE: 41.57 92.77 81.7
    CIFAR-100 LyaNet: 41.07 91.08 81.91
"""
"""Errors in percent: nominal, in the max norm, in the 2-norm."""


def test_table_1_of_lyanet_is_printed_as_in_the_paper() -> None:
    expected = {}
    for line in LYANET.strip().splitlines():
        label, numbers = line.strip().split(": ")
        errors = map(float, numbers.split())
        expected[label] = {
            name: pytest.approx(100 - error)
            for name, error in zip(("test", "script l∞", "script l2"), errors, strict=True)
        }
    published = {f"{row.group} {row.label}": row.published for row in find_item("lyanet_2022/table1_published").rows}
    assert published == expected
    small = {f"{row.group} {row.label}": row.published for row in find_item("lyanet_2022/table1").rows if row.published}
    assert small == {label: row for label, row in expected.items() if label.startswith("FashionMNIST")}


GOOD = """
title: T
items:
  one:
    title: One
    experiment: {a: x/a, b: x/b}
    columns: {test: {perturbation: clean}, r: {quantity: eps_r}}
    evaluations: [[suite=noise]]
    rows:
      - {label: A, group: N = 4, overrides: [depth=4], seeds: 2, published: {test: 90, r: 0.5}}
      - {label: B, overrides: [depth=8]}
    sizes: {small: {overrides: [epochs=1], seeds: [7, 5], label: tiny, rows: [N = 4]}}
"""


def test_what_a_file_says_is_what_an_item_knows() -> None:
    item = read("p", yaml.safe_load(GOOD)).items["one"]
    assert (item.paper.name, item.experiment, list(item.sizes)) == ("p", {"a": "x/a", "b": "x/b"}, ["full", "small"])
    assert [row.seeds for row in item.rows] == [(1, 2), (1, 2, 3)]
    assert [row.name for row in item.rows] == ["N = 4 A", "B"]
    assert (item.sizes["small"].seeds, item.evaluations) == ((7, 5), (("suite=noise",),))
    assert [(column.unit, column.split) for column in item.columns.values()] == [(None, "test"), ("", "test")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("title: T", "titel: T", "paper/p.yaml: unknown key titel: did you mean 'title'?"),
        ("    title: One\n", "", "paper/p.yaml: items.one: expected the key 'title'"),
        ("label: A", "lable: A", "items.one.rows[0]: unknown key lable: did you mean 'label'?"),
        ("overrides: [depth=4], ", "", "items.one.rows[0]: expected the key 'overrides'"),
        ("[depth=4]", "[depth: 4]", "items.one.rows[0].overrides: expected overrides like depth=4, got {'depth': 4}"),
        ("[depth=4]", "[depth=4, seed=1]", "'seed=1' has a place of its own"),
        ("seeds: 2", "seeds: 0", "rows[0].seeds=0: expected how many"),
        ("seeds: 2", "seeds: [1, x]", "expected how many"),
        ("seeds: 2", "seeds: [1, 2, 1]", "rows[0].seeds=[1, 2, 1]: names a seed twice"),
        ("test: 90", "tset: 90", "rows[0].published: unknown key tset: did you mean 'test'?"),
        ("test: 90", "test: good", "rows[0].published.test: expected a number, got 'good'"),
        ("test: 90", "test: .nan", "expected a number, got nan"),
        ("{label: B,", "{label: A, group: N = 4,", "there is a row 'N = 4 A' already"),
        ("{perturbation: clean}", "{}", "columns.test: expected either a perturbation"),
        ("{perturbation: clean}", "{perturbation: clean, unit: ''}", "columns.test.unit=: makes no sense for a score"),
        ("{quantity: eps_r}", "{quantity: eps_r, split: train}", "columns.r.split: makes no sense beside 'quantity'"),
        ("{perturbation: clean}", "{perturbation: clean, severity: x}", "columns.test.severity: expected a number"),
        ("{perturbation: clean}", "{perturbation: clean, n: 1.5}", "columns.test.n: expected a whole number, got 1.5"),
        ("{quantity: eps_r}", "{quantity: eps_r, reference: true}", "r.reference: makes no sense beside 'quantity'"),
        ("{perturbation: clean}", "{perturbation: clean, reference: 1}", "test.reference: expected true or false"),
        (", label: tiny", "", "sizes.small: expected the key 'label'"),
        ("rows: [N = 4]", "rows: [N = 5]", "sizes.small.rows: no row contains 'N = 5'"),
        ("[[suite=noise]]", "[suite=noise]", "evaluations[0]: expected a list"),
        ("[[suite=noise]]", "[[run=x]]", "'run=x' has a place of its own"),
        ("title: One", "title: One\n    figures: [{name: x}]", "figures[0]: expected the key '_target_'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_one_line(old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(BadInput) as error:
        read("p", yaml.safe_load(GOOD.replace(old, new)))
    assert expected in str(error.value) and "\n" not in str(error.value)


def user_paper(folder: Path, text: str = GOOD) -> list[str]:
    (folder / "paper").mkdir(parents=True)
    (folder / "paper" / "p.yaml").write_text(text)
    return [str(folder)]


def test_a_selection_names_its_folder_and_says_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dirs = user_paper(tmp_path / "c")
    plain = select("p/one", [], dirs)
    assert (plain.folder, plain.label, plain.experiment) == (REPORTS / "p" / "one", "", "x/a")
    small = select("p/one", ["size=small", "variant=b", "data.root=/data", "trainer.threads=1"], dirs)
    assert (small.folder, small.label, small.experiment) == (REPORTS / "p" / "one-b-small", "tiny", "x/b")
    assert [row.name for row in small.item.rows] == ["N = 4 A"] and small.seeds_of(small.item.rows[0]) == (7, 5)
    assert small.evaluations() == [("suite=noise", "data.root=/data")]
    changed = select("p/one", ["size=small", "epochs=2", "seeds=2"], dirs)
    assert changed.label == "tiny; changed: epochs=2" and changed.seeds == (1, 2)
    assert changed.folder != small.folder and changed.folder.name.startswith("one-small-")
    assert changed.command == ["robode", "reproduce", "p/one", "size=small", "variant=a", "seeds=[1,2]", "epochs=2"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("size=smal", "size=smal: did you mean 'small'? choose one of: full, small"),
        ("variant=c", "variant=c: choose one of: a, b"),
        ("seeds=many", "seeds=many: expected how many"),
        ("seeds=[1", "seeds=[1: cannot be read"),
        ("rows=C", "rows=C: no row of p/one contains this; there are 'N = 4 A', 'B'"),
        ("force=maybe", "force=maybe: force must be true or false"),
        ("depth=3", "depth=3: the rows of p/one set depth themselves; choose with rows="),
        ("seed=3", "seed=3: the rows of p/one set seed themselves; choose with seeds="),
    ],
)
def test_mistakes_in_overrides_are_one_line(
    word: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as error:
        select("p/one", [word], user_paper(tmp_path / "c"))
    assert str(error.value).startswith(expected)


def test_unknown_papers_and_items_are_answered_with_the_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="did you mean 'chnode_2022'"):
        find_item("chnode_2020/table1")
    with pytest.raises(BadInput, match="did you mean 'table1'"):
        find_item("chnode_2022/tabel1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title: [", "p.yaml, line 1: cannot be read as YAML"),
        (
            "title: T\nitems: {one: {}}\ntitle: U\n",
            "p.yaml, line 3: cannot be read as YAML (the key 'title' comes twice)",
        ),
        ("", "paper/p.yaml: expected keys with values, got None"),
    ],
)
def test_files_that_are_no_paper(text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as error:
        load("p", [Path(each) for each in user_paper(tmp_path / "c", text)])
    assert expected in str(error.value)


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*/*/report.html")), ids=lambda page: "/".join(page.parts[-3:-1]))
def test_a_committed_page_says_what_its_yaml_says(page: Path) -> None:
    """Findings are written after the page was made: `robode report from=` puts them there."""
    known = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    variant = [f"variant={known['variant']}"] if known["variant"] else []
    asked = select(f"{known['paper']}/{known['item']}", variant)
    assert page.parent.parts[-2:] == asked.folder.parts[-2:], "a report lies where its item and variant put it"
    item = items()[asked.name]
    words = _words(html.unescape(re.sub("<[^>]+>", " ", page.read_text(encoding="utf-8"))))
    texts = [item.title, item.note, *(each.here for each in item.paper.differences)]
    assert [text for text in texts if _words(text) not in words] == []


def _words(text: str) -> str:
    return " ".join(text.split())
