"""Names and papers from others: no formula, no markup, no command and no place of this machine reaches a page."""

import base64
import dataclasses
import html
import json
import re

import pandas as pd
import pytest
import yaml
from small_tables import ITEM, collected

from robode.errors import BadInput
from robode.papers.publish import draw, pairs_of, render, restore
from robode.papers.spec import load
from robode.report.page import write_page
from robode.report.style import as_written, inert, without_places

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1")
LABEL = r"=HYPERLINK(1) \input{secrets} <script>alert(1)</script> | $x$ %"
PAPER = {
    "title": "T", "items": {"a": {"title": "A", "experiment": "x", "columns": {"c": {"perturbation": "clean"}},
    "rows": [{"label": "r", "overrides": ["depth=2"]}]}},
}  # fmt: skip
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize("text", [*FORMULAS, "'=1", "''=1"])
def test_a_formula_is_text_in_a_csv_file_and_comes_back(text):
    assert inert(text) == f"'{text}" and as_written(inert(text)) == text


@pytest.mark.parametrize("text", ["ResNet", "N = 4", "'quoted'", "", "a-b", "−0.5"])
def test_other_texts_stay_as_they_are(text):
    assert inert(text) == as_written(text) == text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A report of an item with names that mean harm."""
    folder = tmp_path_factory.mktemp("hostile")
    there = collected(folder / "outputs")
    frames = {
        name: frame.assign(
            label=frame["label"].replace("CH-NODE", LABEL), group=frame["group"].replace("N = 4", "@N = 4")
        )
        for name in ("values", "runs", "rows", "numbers")
        for frame in [getattr(there, name)]
    }
    rows = [
        dataclasses.replace(row, label=row.label.replace("CH-NODE", LABEL), group=row.group.replace("N = 4", "@N = 4"))
        for row in ITEM.rows
    ]
    item = dataclasses.replace(ITEM, rows=tuple(rows), title="=1+1 </title><script>")
    there = dataclasses.replace(there, **frames)
    context = {
        "size": "full", "variant": "script", "paper": "p", "item": "table1",
        "command": "robode reproduce p/table1 data.root=../../../home/someone/secret",
        "configs": {"N": "data:\n  root: /home/someone/secret\n  other: /scratch\n"},
        "warnings": ["no file /mnt/someone/secret/x"], "commit": "", "versions": {"python": "/opt/someone/python3"},
    }  # fmt: skip
    return item, there, render(folder / "report", item, there, context, []).page.parent


@pytest.mark.slow
def test_no_csv_of_a_report_has_a_formula(hostile):
    for path in sorted(hostile[2].glob("*.csv")):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        texts = frame[[name for name in ("label", "group", "label_a", "label_b") if name in frame]]
        assert not texts.map(lambda text: text.startswith(("=", "+", "-", "@"))).any(axis=None), path.name
        assert texts.map(lambda text: text.startswith("'")).any(axis=None), path.name


@pytest.mark.slow
def test_a_report_with_such_names_can_be_made_again(hostile, tmp_path):
    item, there, folder = hostile
    found = restore(folder, item)
    assert set(found.values["label"]) == set(there.values["label"]) and LABEL in set(found.values["label"])
    render(tmp_path, item, found, {}, [], pairs_of(folder))
    assert (tmp_path / "paired.csv").read_text() == (folder / "paired.csv").read_text()


def test_names_are_no_markup(hostile):
    folder = hostile[2]
    page, tex, text = ((folder / name).read_text() for name in ("report.html", "table.tex", "table.md"))
    assert "<script" not in page and html.escape("<script>alert(1)</script>") in page
    assert r"\input{" not in tex and r"\textbackslash{}input\{secrets\}" in tex and r"\$x\$ \%" in tex
    lines = [line for line in text.splitlines() if "HYPERLINK" in line and line.startswith("|")]
    assert len(lines) == 2 and all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in lines)
    assert "<script" not in text.replace(r"\<", "")


def test_no_file_names_a_place_of_this_machine(hostile):
    for path in hostile[2].glob("*.*"):
        found = path.read_text()
        assert not any(place in found for place in ("someone", " /scratch", "/mnt", "/opt/")), path.name
        assert path.name != "report.html" or "…/secret" in found


def test_the_page_of_a_run_names_no_place_either(tmp_path):
    config = {"model": {"name": "chnode"}, "data": {"name": "mnist", "root": "/home/someone/data"}, "depth": 8}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"other": "/scratch"}))
    status = {"status": "failed", "error": "cannot write /mnt/someone/x", "warnings": ["slow disk /mnt/someone/y"]}
    (tmp_path / "status.json").write_text(json.dumps(status))
    argv = ["robode", "train", "data.root=/home/someone/data"]
    environment = {"argv": argv, "executable": "/home/someone/venv/bin/python", "earlier": {}}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    page = write_page(tmp_path).read_text()
    assert "someone" not in page and "other: …/scratch" in page
    assert "data.root=…/data" in page and "cannot write …/x" in page and "…/python" in page


def test_a_picture_is_no_place(tmp_path):
    content = bytes([0xFF, 0xE0, 0x3F] * 40)  # whose letters in base 64 are slashes
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "own.png").write_bytes(content)
    assert f'src="data:image/png;base64,{base64.b64encode(content).decode()}"' in write_page(tmp_path).read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("root=/data", "root=…/data"),
        ("/data", "…/data"),
        ("../../home/x/data", "…/data"),
        ("../data and 8/255 at /255 km/h", "../data and 8/255 at /255 km/h"),
    ],
)
def test_what_is_a_place(text, said):
    assert without_places(text) == said


def paper(folder, content):
    (folder / "paper").mkdir()
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "paper" / "own_2026.yaml").write_text(text)
    return load("own_2026", [folder])


def changed(**item):
    return PAPER | {"items": {"a": PAPER["items"]["a"] | item}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        "title: !!python/object/apply:os.system ['touch harm']\nitems: {}\n",
        LAUGHS + "title: *a11\nitems: {}\n",
        "title: &a [*a]\nitems: {}\n",
        "? [a, b]\n: 1\n",
        "[" * 20_000,
        "title: !!binary /////w==\nitems: {}\n",
        PAPER | {"title": "clear\x1b[2J the screen"},
        PAPER | {"items": {"../../../etc": PAPER["items"]["a"]}},
        changed(sizes={"../x": {}}),
        changed(experiment={"/x": "y"}),
        changed(rows=[{"label": "r", "overrides": ["depth=2"], "published": {"c": 10**400}}]),
        changed(rows=[{"label": "r", "overrides": ["depth=2"], "published": {"c": float("nan")}}]),
        changed(seeds=10**30),
    ],
)
def test_a_hostile_paper_is_refused_in_one_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as refused:
        paper(tmp_path, content)
    assert "own_2026" in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 1000
    assert not (tmp_path / "harm").exists()


def test_a_paper_reads_no_environment_and_draws_with_no_foreign_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.chdir(tmp_path)
    node = {"_target_": "os.system", "command": "touch harm"}
    found = paper(tmp_path, changed(title="${oc.env:SECRET} ${now:%Y}", figures=[node]))
    assert found.items["a"].title == "${oc.env:SECRET} ${now:%Y}"
    with pytest.raises(BadInput, match=r"os\.system"):
        draw(found.items["a"], None)
    assert not (tmp_path / "harm").exists()
