"""What is misclassified at a smaller eps is so at a larger one, whatever was asked for first."""

import numpy as np
import pytest
from small_runs import SMALL, composed

from robode.api.evaluation import run_evaluation
from robode.evaluation.consistency import make_monotone
from robode.runs import results
from robode.runs.results import Store
from robode.runs.scores import read_scores, write_scores
from robode.tasks.classification import Classification
from robode.tasks.measure import mean_score, wilson
from robode.tasks.regression import Regression

TASK = Classification(("a", "b"))
SAME = dict.fromkeys(results.COLUMNS, "") | {
    "run": "r", "weights": "w", "checkpoint": "last", "split": "test", "evaluation": "0123", "perturbation": "pgd_l2",
    "norm": "l2", "severity_unit": "eps", "noise_seed": 0, "repeat": 0, "depth": 2, "params": 3, "seed": 0,
    "flow_ode": 1.0, "flow_discrete": 1.0, "end_to_end": 1.0, "seconds": 0.1, "score_reference": 0.7,
    "suite": "attacks",
}  # fmt: skip


def put(folder, eps, right, **other):
    right = np.array(right, dtype=np.float32)
    store = Store(folder)
    measured = {"severity": eps, "n": len(right), "task": str(TASK.measure), "score": mean_score(right)}
    store.add([SAME | measured | other], [right])


def rows(folder):
    return results.read_rows(folder / "results.csv").to_dict("records")


def test_larger_eps_lose_what_smaller_ones_broke_and_nothing_else_changes(tmp_path):
    put(tmp_path, 0.6, [1, 1, 1, 0, 1, 0])
    put(tmp_path, 0.2, [1, 1, 1, 1, 1, 0])
    put(tmp_path, 0.4, [0, 1, 1, 1, 1, 0])
    put(tmp_path, 0.6, [1, 1, 1, 1, 1, 1], perturbation="apgd_l2", evaluation="4567")  # another attack
    put(tmp_path, 0.6, [1, 1, 1, 1], n=4, evaluation="89ab")  # other samples
    put(tmp_path, 0.0, [0, 0, 0, 0, 0, 0], perturbation="clean", severity_unit="none", evaluation="cdef")
    before = {(row["evaluation"], row["severity"]): row for row in rows(tmp_path)}
    assert make_monotone(Store(tmp_path), TASK) == 1
    after = {(row["evaluation"], row["severity"]): row for row in rows(tmp_path)}
    low = after["0123", 0.6]
    assert read_scores(tmp_path, low).tolist() == [0, 1, 1, 0, 1, 0]
    assert (low["score"], low["score_reference"]) == (0.5, 0.7)
    assert (low["score_low"], low["score_high"]) == pytest.approx(wilson(3, 6))
    assert {key: row for key, row in after.items() if key != ("0123", 0.6)} == {
        key: row for key, row in before.items() if key != ("0123", 0.6)
    }
    assert make_monotone(Store(tmp_path), TASK) == 0


def test_every_name_of_the_weights_gets_the_answer(tmp_path):
    for name in ("best", "last"):
        put(tmp_path, 0.6, [1, 1, 1], checkpoint=name)
    put(tmp_path, 0.2, [1, 1, 0])
    assert make_monotone(Store(tmp_path), TASK) == 1
    assert [row["score"] for row in rows(tmp_path) if row["severity"] == 0.6] == [2 / 3, 2 / 3]


def test_a_kill_between_the_bits_and_their_row_is_measured_again(tmp_path):
    put(tmp_path, 0.6, [1, 1, 1])
    put(tmp_path, 0.2, [1, 1, 1])
    larger = next(row for row in rows(tmp_path) if row["severity"] == 0.6)
    write_scores(tmp_path, larger, np.array([True, False, True]))
    store = Store(tmp_path)
    assert larger not in store and larger | {"severity": 0.2} in store
    assert make_monotone(store, TASK) == 0


@pytest.mark.slow
def test_an_evaluation_lowers_what_an_earlier_one_with_a_larger_eps_left(tmp_path, monkeypatch):
    from robode.api.training import run_training

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    run = run_training(composed(*SMALL, "epochs=1"), [*SMALL, "epochs=1"]).run

    def evaluated(eps):
        words = (f"run={run}", "suite=attacks_quick", "~suite.pgd_linf", "~suite.fgsm_linf", f"suite.pgd_l2.eps={eps}")
        found = run_evaluation(composed(*words, "verdicts=0", verb="evaluate")).rows
        return next(row for row in found if row["severity"] == eps)

    def found_nothing(row):
        changes = dict(score=1.0, score_low=0.9, score_high=1.0)
        Store(run).replace(row | changes, np.ones(row["n"], dtype=bool))

    late = evaluated(4.0)
    found_nothing(late)
    small = read_scores(run, evaluated(0.5))
    assert not small.all()
    lowered = [row["score"] for row in rows(tmp_path / run) if row["severity"] == 4.0]
    assert lowered == [small.mean()]
    found_nothing(late)  # as if a kill had come before the rows were made to agree; now nothing is missing
    assert evaluated(4.0)["score"] == small.mean()


def test_of_errors_the_larger_one_stays(tmp_path):
    task = Regression(2)

    def put_errors(eps, errors):
        errors = np.array(errors, dtype=np.float32)
        low, high = task.interval(errors)
        found = {"task": str(task.measure), "score": mean_score(errors), "score_low": low, "score_high": high}
        Store(tmp_path).add([SAME | {"severity": eps, "n": len(errors)} | found], [errors])

    put_errors(0.6, [0.5, 0.25, 1.0])
    put_errors(0.2, [0.25, 0.75, 0.5])
    assert make_monotone(Store(tmp_path), task) == 1
    large = next(row for row in rows(tmp_path) if row["severity"] == 0.6)
    assert read_scores(tmp_path, large).tolist() == [0.5, 0.75, 1.0]
    assert (large["score"], (large["score_low"], large["score_high"])) == (
        0.75, pytest.approx(task.interval(np.array([0.5, 0.75, 1.0]))),
    )  # fmt: skip
