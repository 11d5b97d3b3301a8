"""What fell at a smaller eps has fallen at a larger one, whatever was asked for first."""

import numpy as np
import pytest
from small_runs import SMALL, composed

from robode.evaluate import run_evaluation
from robode.report import records
from robode.report.correct import read_correct, write_correct
from robode.report.store import Store
from robode.robustness.falling import settle

GIVEN = [name for name in records.COLUMNS if not name.startswith("accuracy")]
SAME = dict.fromkeys(GIVEN, "") | {
    "run": "r", "weights": "w", "checkpoint": "last", "split": "test", "evaluation": "0123", "perturbation": "pgd_l2",
    "norm": "l2", "severity_unit": "eps", "noise_seed": 0, "repeat": 0, "depth": 2, "params": 3, "seed": 0,
    "flow_ode": 1.0, "flow_discrete": 1.0, "end_to_end": 1.0, "seconds": 0.1, "correct_finer": 7, "suite": "attacks",
}  # fmt: skip


def put(folder, eps, right, **other):
    right = np.array(right, dtype=bool)
    store = Store(folder)
    store.add([SAME | {"severity": eps, "n": len(right), "correct": int(right.sum())} | other], [right])


def rows(folder):
    return records.read_rows(folder / "results.csv").to_dict("records")


def test_larger_eps_lose_what_smaller_ones_broke_and_nothing_else_changes(tmp_path):
    put(tmp_path, 0.6, [1, 1, 1, 0, 1, 0])
    put(tmp_path, 0.2, [1, 1, 1, 1, 1, 0])
    put(tmp_path, 0.4, [0, 1, 1, 1, 1, 0])
    put(tmp_path, 0.6, [1, 1, 1, 1, 1, 1], perturbation="apgd_l2", evaluation="4567")  # another attack
    put(tmp_path, 0.6, [1, 1, 1, 1], n=4, evaluation="89ab")  # other samples
    put(tmp_path, 0.0, [0, 0, 0, 0, 0, 0], perturbation="clean", severity_unit="none", evaluation="cdef")
    before = {(row["evaluation"], row["severity"]): row for row in rows(tmp_path)}
    assert settle(Store(tmp_path)) == 1
    after = {(row["evaluation"], row["severity"]): row for row in rows(tmp_path)}
    low = after["0123", 0.6]
    assert read_correct(tmp_path, low).tolist() == [0, 1, 1, 0, 1, 0]
    assert (low["correct"], low["accuracy"], low["correct_finer"]) == (3, 0.5, 7)
    assert (low["accuracy_low"], low["accuracy_high"]) == pytest.approx(records.wilson(3, 6))
    assert {key: row for key, row in after.items() if key != ("0123", 0.6)} == {
        key: row for key, row in before.items() if key != ("0123", 0.6)
    }
    assert settle(Store(tmp_path)) == 0


def test_every_name_of_the_weights_gets_the_answer(tmp_path):
    for name in ("best", "last"):
        put(tmp_path, 0.6, [1, 1, 1], checkpoint=name)
    put(tmp_path, 0.2, [1, 1, 0])
    assert settle(Store(tmp_path)) == 1
    assert [row["correct"] for row in rows(tmp_path) if row["severity"] == 0.6] == [2, 2]


def test_a_kill_between_the_bits_and_their_row_is_measured_again(tmp_path):
    put(tmp_path, 0.6, [1, 1, 1])
    put(tmp_path, 0.2, [1, 1, 1])
    larger = next(row for row in rows(tmp_path) if row["severity"] == 0.6)
    write_correct(tmp_path, larger, np.array([True, False, True]))
    store = Store(tmp_path)
    assert larger not in store and larger | {"severity": 0.2} in store
    assert settle(store) == 0


def test_an_evaluation_lowers_what_an_earlier_one_with_a_larger_eps_left(tmp_path, monkeypatch):
    from robode.train import run_training

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.evaluate.draw_figures", lambda folder: [])
    run = run_training(composed(*SMALL, "epochs=1"), [*SMALL, "epochs=1"])["run"]

    def evaluated(eps):
        words = (f"run={run}", "suite=attacks_quick", "~suite.pgd_linf", "~suite.fgsm_linf", f"suite.pgd_l2.eps={eps}")
        found = run_evaluation(composed(*words, "verdicts=0", verb="evaluate"))["rows"]
        return next(row for row in found if row["severity"] == eps)

    def found_nothing(row):
        changes = dict(correct=row["n"], accuracy=1.0, accuracy_low=0.9, accuracy_high=1.0)
        Store(run).replace(row | changes, np.ones(row["n"], dtype=bool))

    late = evaluated(4.0)
    found_nothing(late)
    small = read_correct(run, evaluated(0.5))
    assert not small.all()
    lowered = [row["correct"] for row in rows(tmp_path / run) if row["severity"] == 4.0]
    assert lowered == [small.sum()]
    found_nothing(late)  # as if a kill had come before the rows were made to agree; now nothing is missing
    assert evaluated(4.0)["correct"] == small.sum()
