"""Rows of a paper that begin with the weights of another row's runs: refused, ordered, waited for, collected."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from robode.cli.main import main
from robode.errors import BadInput
from robode.papers.collect import Shelf, collect
from robode.papers.plan import evaluations, plan
from robode.papers.selection import Selection, select
from robode.papers.spec import read
from robode.report.statistics import pooled
from robode.runs.run import Run
from robode.verbs.reproduce import Reproduction

EXPERIMENT = """# @package _global_
# Stabilised afterwards
defaults:
  - override /data: double_moons
  - override /model: stable_node
  - override /encoder: augment
  - override /suite: clean
  - override /callbacks: none

depth: 2
epochs: 1
batch_size: 30
repeats: 1
data: {validation: 0, limit_train: 60}
model: {width: 4}
"""
PAPER: dict[str, Any] = {
    "title": "Stabilised afterwards",
    "items": {
        "one": {
            "title": "One",
            "experiment": "calm/one",
            "columns": {"test": {"perturbation": "clean"}},
            "seeds": 2,
            "rows": [
                {"group": "G", "label": "twice", "start": "G once", "overrides": ["model.delta=-0.5", "epochs=0"]},
                {"group": "G", "label": "once", "start": "G free", "overrides": ["model.delta=0.0", "epochs=0"]},
                {"group": "G", "label": "free", "overrides": ["model.stabilise=none"]},
            ],
            "sizes": {"smoke": {"overrides": ["epochs=2"], "seeds": 1, "label": "two epochs"}},
        }
    },
}


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    for name, text in (("experiment/calm/one", EXPERIMENT), ("paper/calm", "# An example\n" + yaml.safe_dump(PAPER))):
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)


def chosen(*words: str) -> Selection:
    return select("calm/one", words)


def changed(**changes: Any) -> dict[str, Any]:
    """The paper with other keys of its rows or sizes: row0={...}, sizes={...}."""
    content = copy.deepcopy(PAPER)
    item = content["items"]["one"]
    for key, value in changes.items():
        if key.startswith("row"):
            item["rows"][int(key[3:])] |= value
        else:
            item[key] = value
    return content


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"row1": {"start": "G fre"}}, r"rows\[1\].start=G fre: did you mean 'G free'\? choose one of: G twice, "),
        ({"row2": {"start": "G twice"}}, r"rows begin with each other: G twice → G once → G free → G twice"),
        ({"row2": {"start": "G free"}}, r"rows begin with each other: G twice → G once → G free → G free"),
        ({"row2": {"seeds": [1]}}, r"start=G free: that row has no seed 2, which 'G once' has"),
        ({"row1": {"overrides": ["start=x"]}}, r"rows\[1\].overrides: 'start=x' has a place of its own"),
        ({"sizes": {"s": {"rows": ["twice"], "label": "x"}}}, r"sizes.s.rows: 'G twice' begins with those of 'G once'"),
    ],
)
def test_rows_that_cannot_begin_so(changes: dict[str, Any], line: str) -> None:
    read("calm", PAPER)
    with pytest.raises(BadInput, match=line):
        read("calm", changed(**changes))


def test_the_plan_has_every_job_after_the_one_that_it_waits_for(paper: None) -> None:
    jobs = plan(chosen())
    assert [job.name for job in jobs] == [f"G {row}, seed {s}" for row in ("free", "once", "twice") for s in (1, 2)]
    assert [job.start and job.start.name for job in jobs[2:]] == [job.name for job in jobs[:4]]
    assert len({job.hash for job in jobs}) == 6
    assert [job.number for job in jobs] == [2, 2, 1, 1, 0, 0]
    (free, once, twice) = plan(chosen("size=smoke"))
    assert (free.cfg.epochs, once.cfg.epochs, twice.cfg.epochs) == (2, 0, 0), "a size does not train them"


def test_whoever_wants_a_row_wants_those_that_it_begins_with(paper: None) -> None:
    wanted = {job.name for job in plan(chosen("rows=once", "seeds=1")) if job.wanted}
    assert wanted == {"G once, seed 1", "G free, seed 1"}


def test_a_network_of_another_kind_is_refused_before_anything_is_trained(paper: None) -> None:
    rows = chosen().item.rows
    other = replace(rows[1], overrides=(*rows[1].overrides, "depth=3"))
    selection = replace(chosen(), item=replace(chosen().item, rows=(other, rows[2])))
    with pytest.raises(BadInput, match=r"start: G free: depth=2 \(not 3\)"):
        plan(selection)


def test_what_cannot_begin_says_so_and_ends_no_night(
    paper: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = chosen("seeds=1")
    work = Reproduction(selection, plan(selection), evaluations(selection))
    trained: list[list[str]] = []
    monkeypatch.setattr(Reproduction, "_train", lambda self, todo, after: trained.append([job.name for job in todo]))
    monkeypatch.setattr(Reproduction, "_publish", lambda self: None)
    assert work.run() == 1
    assert trained == [["G free, seed 1"], [], []]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "robode: G once, seed 1: not run, because 'G free, seed 1', with whose weights it begins, is not finished",
        "robode: G twice, seed 1: not run, because 'G once, seed 1', with whose weights it begins, is not finished",
    ]


@pytest.mark.slow
def test_a_whole_item_from_random_weights_to_cells(paper: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["reproduce", "calm/one", "--dry-run"]) == 0
    assert "G twice, seed 2: waits for G once, seed 2" in capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before
    assert main(["reproduce", "calm/one"]) == 0, capsys.readouterr().err
    assert "job 6 of 6, G twice, seed 2: done" in capsys.readouterr().out
    jobs, shelf = plan(chosen()), Shelf()
    found = collect(chosen().item, jobs, shelf)
    assert len(found.values) == 6 and set(found.runs["status"]) == {"done"}
    for job in jobs[2:]:
        run, start = shelf.find(job), shelf.find(job.start)
        assert run is not None and start is not None and run.folder != start.folder
        assert Path(str(run.config().start)) == start.folder and run.config().seed == start.config().seed
    runs = sorted(Path("outputs/calm").glob("*/*.ckpt")) + sorted(Path("outputs/calm").glob("*/*/last.ckpt"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert main(["reproduce", "calm/one"]) == 0
    out = capsys.readouterr().out
    assert "6 jobs, 6 of them complete" in out and [path.stat().st_mtime_ns for path in runs] == times
    assert main(["reproduce", "calm/one", "--dry-run"]) == 0
    assert "waits" not in capsys.readouterr().out and len(runs) == 6
    first = Run(runs[0].parent)
    assert first.trained


def test_seeds_are_pooled_where_each_began_with_weights_of_its_own() -> None:
    one, two = ({"seed": seed, "start_weights": weights} for seed, weights in ((1, "a"), (2, "b")))
    assert list(pooled([("x", one, [0.1]), ("y", two, [0.2])])) == [0.1, 0.2]
    with pytest.raises(BadInput, match="start_weights: expected one value"):
        pooled([("x", one, [0.1]), ("y", {"seed": 2}, [0.2])])
