"""From run folders to values: which rows feed a cell, and what is said of runs that are not done."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_runs import composed

from robode.errors import BadInput
from robode.files import write_json
from robode.papers.collect import Shelf, collect, left_out
from robode.papers.plan import PlannedRun
from robode.papers.publish import restore
from robode.papers.spec import Item
from robode.report.layout import About, Column, TableRow
from robode.runs import results
from robode.runs.code import RECORD, measuring_codes, training_code
from robode.runs.run import Run, create
from robode.tasks.measure import CLASSIFICATION

COLUMNS = {
    "train": Column("train", split="train", perturbation="clean"),
    "noise": Column("noise", perturbation="gaussian", severity=0.2, protocol="chnode_2022"),
    "r": Column("r", quantity="eps_r", unit=""),
    "settled": Column("settled", quantity="gamma_settled", kind="exact", unit=""),
}
ROW = TableRow("CH-NODE", ("model=chnode",), (1, 2), "N = 4", {"noise": 77.69})
ITEM = Item(About("p", "P"), "one", "One", COLUMNS, (ROW,), experiment={"": "p/one"})
BASE = replace(composed("model=chnode", "depth=4", "data=double_moons", "suite=clean"), experiment="p/one", suite={})
JOBS = [PlannedRun(0, ROW, seed, (), replace(BASE, seed=seed)) for seed in (1, 2)]
CODE = measuring_codes(JOBS[0].plain, {}, JOBS[0].plain["protocol"])[""]  # without a suite, all rows are the protocol's


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_of(job: PlannedRun, name: str = "", digest: str = "d", trained: bool = True, **changes: Any) -> Run:
    """A run folder as training leaves it."""
    config = replace(job.cfg, data=replace(job.cfg.data, root="elsewhere"), repeats=2, **changes)
    run = create(Run(Path("outputs/p/one") / (name or f"run-{job.seed}")), config)
    write_json(
        run.folder / RECORD,
        {"data_digest": digest, "train_seconds": 12.5, "code_digest": training_code(config.plain())},
    )
    if trained:
        run.last.write_text("")
        run.update(status="done", trained=True)
    return run


def measured(run: Run, *rows: dict[str, Any], seed: int = 1) -> Run:
    """Rows of results.csv; n = 10, and every column that a row does not give."""
    usual = dict.fromkeys(results.COLUMNS, "") | {
        "run": run.id, "checkpoint": "last", "weights": "w", "split": "test", "depth": 4,
        "params": 63, "seed": seed, "protocol": "chnode_2022",
        "noise_seed": seed, "evaluation": "e", "suite": "noise", "severity": 0.0, "repeat": 0,
        "n": 10, "code": CODE, "flow_ode": 0.9, "flow_discrete": 2.0, "seconds": 1,
    }  # fmt: skip
    lines = [usual | row for row in rows]
    scored = [{**line, "task": str(CLASSIFICATION), "score": line.pop("correct") / 10} for line in lines]
    results.append_rows(
        run.folder / "results.csv", [{k: v for k, v in line.items() if k != "correct"} for line in scored]
    )
    return run


NOISE = {"perturbation": "gaussian", "severity": 0.2}


def value(column: str, seed: int = 1) -> pd.Series:
    values = collect(ITEM, JOBS).values
    found = values[(values["column"] == column) & (values["seed"] == seed)]
    assert len(found) == 1
    return found.iloc[0]


def test_nothing_is_there_yet() -> None:
    found = collect(ITEM, JOBS)
    assert (
        found.values.empty and list(found.runs["status"]) == ["not started"] * 2 and list(found.runs["seed"]) == [1, 2]
    )


def test_a_run_belongs_to_a_job_by_its_training_configuration_alone() -> None:
    """Not by its name; places and evaluations may differ, the training may not."""
    measured(run_of(JOBS[0], name="by-hand"), {**NOISE, "correct": 7})
    measured(run_of(JOBS[1], depth=5), {**NOISE, "correct": 9}, seed=2)
    found = collect(ITEM, JOBS)
    assert list(found.runs["run"].fillna("")) == ["by-hand", ""]
    facts = found.runs.iloc[0]
    assert (facts["status"], facts["params"], facts["train_seconds"], facts["mark"]) == ("done", 63, 12.5, False)
    assert (facts["flow_ode"], facts["flow_discrete"]) == (0.9, 2.0)
    assert len(found.values) == 1


def test_copies_are_averaged_and_counted() -> None:
    copies = [{**NOISE, "repeat": i, "correct": correct} for i, correct in enumerate((6, 8, 7))]
    measured(run_of(JOBS[0]), *copies)
    cell = value("noise")
    assert (cell["value"], cell["n"], cell["repeats"], cell["kind"]) == (pytest.approx(0.7), 10, 3, "score")
    assert cell["spread"] == pytest.approx(0.1) and math.isnan(cell["low"])


def test_a_column_takes_only_what_it_asks_for() -> None:
    others = [{"severity": 0.05}, {"protocol": "data_space"}, {"split": "train"}, {"perturbation": "clip_only"}]
    rows = [{**NOISE, "correct": 1, **other} for other in others]
    measured(run_of(JOBS[0]), *rows, {**NOISE, "correct": 7}, {"perturbation": "clean", "split": "train", "correct": 9})
    assert (value("noise")["value"], value("train")["value"]) == (0.7, 0.9)


def test_the_runs_own_noise_goes_first_and_then_the_most_copies() -> None:
    run = measured(run_of(JOBS[0]), *({**NOISE, "noise_seed": 5, "correct": 1, "repeat": i} for i in range(3)))
    assert value("noise")["repeats"] == 3
    measured(run, {**NOISE, "correct": 7})
    assert value("noise")["value"] == 0.7
    measured(run, *({**NOISE, "evaluation": "f", "correct": 4, "repeat": i} for i in range(2)))
    assert value("noise")["value"] == 0.4


def test_the_same_samples_as_most_columns_and_then_the_latest() -> None:
    attacks = {f"eps {eps}": Column(f"eps {eps}", perturbation="pgd_l2", severity=eps) for eps in (0.1, 0.2)}
    item = replace(ITEM, columns={"test": Column("test", perturbation="clean"), **attacks})
    clean = {"perturbation": "clean", "correct": 5}
    run = measured(run_of(JOBS[0]), {**clean, "n": 50}, {**clean, "n": 20, "evaluation": "f"})

    def samples() -> list[int]:
        return [int(n) for n in collect(item, JOBS[:1]).values["n"]]

    assert samples() == [20], "the latest, where nothing else is known"
    attack = {"perturbation": "pgd_l2", "correct": 3, "evaluation": "g"}
    measured(run, *({**attack, "n": 50, "severity": eps} for eps in (0.1, 0.2)))
    assert samples() == [50, 50, 50]
    measured(run, *({**clean, "n": 20, "evaluation": "h", "repeat": i} for i in range(2)))
    assert samples() == [50, 50, 50], "nor for more copies"


def test_a_column_of_the_reference_solver_has_its_answers_to_the_same_samples() -> None:
    attack = Column("pgd", perturbation="pgd_l2", severity=0.1)
    columns = {"pgd": attack, "reference": replace(attack, name="reference", reference=True)}
    item = replace(ITEM, columns=columns)
    row = {"perturbation": "pgd_l2", "severity": 0.1, "correct": 3}
    measured(run_of(JOBS[0]), {**row, "score_reference": 0.2})
    measured(run_of(JOBS[1]), row, seed=2)  # one without a reference solver
    found = collect(item, JOBS).values.set_index(["column", "seed"])["value"]
    assert found.to_dict() == {("pgd", 1): 0.3, ("reference", 1): 0.2, ("pgd", 2): 0.3}


def test_rows_of_weights_that_are_gone_do_not_count() -> None:
    run = measured(run_of(JOBS[0]), {**NOISE, "correct": 1, "weights": "old"}, {**NOISE, "correct": 7})
    assert value("noise")["value"] == 0.7
    measured(run, {**NOISE, "correct": 5, "checkpoint": "best", "weights": "chosen"})
    assert value("noise")["value"] == 0.5


def test_numbers_are_known_exactly_or_from_two_sides() -> None:
    run = measured(run_of(JOBS[0]), {**NOISE, "correct": 7})
    about = {"run": run.id, "checkpoint": "last", "weights": "w", "code": CODE}
    bounds = [("eps_r", "certified_lower", 0.6), ("eps_r", "attack_upper", 0.7), ("gamma_settled", "exact", 1)]
    rows = [about | {"quantity": name, "kind": kind, "value": number} for name, kind, number in bounds]
    results.append_numbers(run.folder / "numbers.csv", [*rows, rows[0] | {"weights": "old", "value": 0.9}])
    radius, settled = value("r"), value("settled")
    assert (radius["low"], radius["high"], radius["value"], radius["kind"]) == (0.6, 0.7, 0.6, "bounds")
    assert (settled["value"], settled["kind"]) == (1, "exact")


def test_an_unfinished_run_is_shown_without_values() -> None:
    run = run_of(JOBS[0], trained=False)
    measured(run, {**NOISE, "correct": 7})
    run.update(status="failed", error="NaN loss")
    found = collect(ITEM, JOBS)
    assert found.values.empty and tuple(found.runs.loc[0, ["status", "error"]]) == ("failed", "NaN loss")


def test_a_run_of_other_code_does_not_count_unless_that_was_asked_for_and_is_marked() -> None:
    run = measured(run_of(JOBS[0]), {**NOISE, "correct": 7})
    write_json(run.folder / RECORD, {"data_digest": "d", "code_digest": "other"})
    shelf = Shelf(code="any")
    (cell,) = collect(ITEM, JOBS, shelf).values.itertuples()
    assert cell.mark and collect(ITEM, JOBS, shelf).runs["mark"].tolist() == [True, False]
    found = collect(ITEM, JOBS)
    assert found.values.empty and found.runs["status"].tolist() == ["not started"] * 2
    assert left_out(Shelf(), JOBS) == "† runs of other code that do not count: 1; code=any uses them, marked"
    mine = run_of(JOBS[0], name="run-1-2")
    assert Shelf().find(JOBS[0]) == mine == shelf.find(JOBS[0]) and not left_out(Shelf(), JOBS)


def test_rows_that_other_code_measured_do_not_count() -> None:
    """Seed 2 was measured before the perturbation was changed: its cell waits until it is measured again."""
    measured(run_of(JOBS[0]), {**NOISE, "correct": 7})
    old = CODE.partition(".")[0] + ".0123456789ab"
    measured(run_of(JOBS[1]), {**NOISE, "correct": 1, "code": old}, seed=2)
    assert collect(ITEM, JOBS).values["seed"].tolist() == [1]
    assert collect(ITEM, JOBS, Shelf(code="any")).values["seed"].tolist() == [1, 2]


def test_runs_that_saw_other_data_are_not_mixed() -> None:
    measured(run_of(JOBS[0]), {**NOISE, "correct": 7})
    measured(run_of(JOBS[1], digest="other"), {**NOISE, "correct": 7}, seed=2)
    with pytest.raises(BadInput, match="data: runs run-1 and run-2 saw different files"):
        collect(ITEM, JOBS)


def test_rows_may_ask_for_other_samples_of_one_data_set() -> None:
    """Keys of the source change the samples, and are no sign of other files."""
    (first, second), node = JOBS[:2], JOBS[1].cfg.data
    other = replace(node, source=replace(node.source, arguments={**node.source.arguments, "n": 16}))
    jobs = [first, replace(second, cfg=replace(second.cfg, data=other))]
    for job, digest in zip(jobs, ("one", "another"), strict=True):
        measured(run_of(job, digest=digest), {**NOISE, "correct": 7}, seed=job.seed)
    assert sorted(collect(ITEM, jobs).values["seed"]) == [1, 2]


def test_a_column_must_mean_one_measurement() -> None:
    item = replace(ITEM, columns={"noise": Column("noise", perturbation="gaussian")})
    measured(run_of(JOBS[0]), {**NOISE, "correct": 7}, {**NOISE, "severity": 0.05, "correct": 8})
    with pytest.raises(
        BadInput, match="columns.noise: several measurements of N = 4 CH-NODE fit, with severity 0.05, 0.2"
    ):
        collect(item, JOBS)


def test_what_was_read_is_read_again_only_where_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    run, shelf, reads = run_of(JOBS[0]), Shelf(), []
    config = Run.config
    monkeypatch.setattr(Run, "config", lambda self: reads.append(self.id) or config(self))
    for _ in range(3):
        assert shelf.find(JOBS[0]) == run and shelf.find(JOBS[1]) is None
    assert reads == ["run-1"]
    (run.folder / "config.yaml").write_text("damaged: [")
    assert shelf.find(JOBS[0]) is None


def test_a_run_with_a_damaged_table_costs_its_own_cells() -> None:
    good, bad = (measured(run_of(job), {**NOISE, "correct": 6}, seed=job.seed) for job in JOBS[:2])
    path = bad.folder / "results.csv"
    path.write_text(path.read_text().replace(",0.6,", ",99999999,"))
    found = collect(ITEM, JOBS)
    status = dict(zip(found.runs["run"], found.runs["status"], strict=True))
    assert (status[good.id], status[bad.id]) == ("done", "damaged")
    assert "score=99999999" in found.runs.set_index("run")["error"][bad.id]
    assert set(found.rows["seed"]) == {JOBS[0].seed}


def test_tables_beside_a_report_hold_everything(tmp_path: Path) -> None:
    run = measured(run_of(JOBS[0]), *({**NOISE, "correct": 6 + i, "repeat": i} for i in range(2)))
    bound = {"run": run.id, "checkpoint": "last", "weights": "w", "quantity": "eps_r", "code": CODE}
    kinds = (("certified_lower", 0.6), ("attack_upper", 0.7))
    results.append_numbers(run.folder / "numbers.csv", [bound | {"kind": kind, "value": x} for kind, x in kinds])
    found = collect(ITEM, JOBS)
    published = tmp_path / "published"
    published.mkdir()
    runs = found.runs.assign(folder=found.runs["folder"].str.removeprefix("outputs/"))  # as report.paper_page writes it
    for name, frame in (("rows", found.rows), ("numbers", found.numbers), ("runs", runs)):
        frame.to_csv(published / f"{name}.csv", index=False)
    again = restore(published, ITEM)
    pd.testing.assert_frame_equal(again.values, found.values, check_dtype=False)
    assert list(again.runs["status"]) == ["done", "not started"]
    (published / "rows.csv").unlink()
    with pytest.raises(BadInput, match="rows.csv: expected the table of a report"):
        restore(published, ITEM)
