"""results.csv and numbers.csv: what a row must hold, which rows are one, and what an interval over repeats means."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from small_tables import result_row as row

from robode.errors import BadInput
from robode.runs import results
from robode.runs.code import Today
from robode.runs.table import BSM_NORMS, METRICS, Table
from robode.tasks.measure import wilson
from robode.tasks.regression import Regression


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (83, 100), (1, 1), (9_640, 10_000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(correct, n, level):
    expected = binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "n", "level"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_wilson_refuses_what_is_no_proportion(correct, n, level):
    with pytest.raises(ValueError, match="expected"):
        wilson(correct, n, level)


def test_rows_come_back_with_types_accuracy_and_interval(tmp_path):
    path = tmp_path / "results.csv"
    results.append_rows(path, [row(), row(perturbation="clean", severity=0, correct=97)])
    frame = results.read_rows(path)
    assert list(frame.columns) == list(results.COLUMNS)
    first = frame.iloc[0]
    assert (first["depth"], first["seed"], first["experiment"]) == (8, 0, "")
    assert (first["score"], first["score_low"], first["score_high"]) == pytest.approx((0.8, *wilson(80, 100)))
    assert np.isinf(first["flow_discrete"]) and first["flow_ode"] == 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"correct": 101}, "correct <= n"),
        ({"score": 0.805}, "share of 100 samples"),
        ({"severity": -0.1}, "severity"),
        ({"epsilon": 1}, "unknown columns"),
        ({"run": "two\nlines"}, "one line"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_and_nothing_written(tmp_path, changes, words):
    path = tmp_path / "results.csv"
    with pytest.raises(ValueError, match=words):
        results.append_rows(path, [row(), row(**changes)])
    assert not path.exists()


@pytest.mark.parametrize("name", ["seed", "noise_seed", "weights", "evaluation"])
def test_a_row_without_its_seeds_weights_or_evaluation_is_refused(tmp_path, name):
    incomplete = {key: value for key, value in row().items() if key != name}
    with pytest.raises(ValueError, match=f"lacks .*'{name}'"):
        results.append_rows(tmp_path / "results.csv", [incomplete])


def test_the_last_row_of_a_key_wins(tmp_path):
    path = tmp_path / "results.csv"
    results.append_rows(path, [row(correct=10), row(repeat=1, correct=20)])
    results.append_rows(path, [row(correct=30, commit="later", seconds=9.0)])
    assert path.read_text().count("\n") == 4  # nothing is rewritten
    assert dict(results.read_rows(path)[["repeat", "score"]].values) == {0: 0.3, 1: 0.2}


@pytest.mark.parametrize("name", [*(name for name in results.IDENTITY if name != "repeat"), "checkpoint"])
def test_whatever_is_part_of_the_identity_or_the_checkpoints_name_tells_rows_apart(tmp_path, name):
    path = tmp_path / "results.csv"
    other = {"noise_seed": 1, "severity": 0.3}.get(name, "other")
    results.append_rows(path, [row(correct=10), row(correct=30, **{name: other})])
    rows = results.read_rows(path)
    assert rows["score"].tolist() == [0.1, 0.3]
    assert results.summarise(rows)["score"].tolist() == [0.1, 0.3]


def test_what_was_found_tells_no_rows_apart(tmp_path):
    path = tmp_path / "results.csv"
    found = {"score": 0.3, "seconds": 9.0, "commit": "later", "params": 11, "experiment": "other", "solver": "x"}
    results.append_rows(path, [row(correct=10), row(**found)])
    assert results.read_rows(path)["score"].tolist() == [0.3]


def test_levels_measured_later_stand_beside_the_others(tmp_path):
    path = tmp_path / "results.csv"
    first = [row(severity=level, repeat=repeat) for repeat in (0, 1) for level in (0.3, 0.1)]
    results.append_rows(path, [row(perturbation="clean", severity=0.0, evaluation="c"), *first])
    results.append_rows(path, [row(perturbation="blur", severity=0.5, evaluation="b"), row(split="train")])
    results.append_rows(path, [row(severity=0.2)])
    summary = results.summarise(results.read_rows(path))
    shown = [summary[name] for name in ("split", "perturbation", "severity", "repeats")]
    assert list(zip(*shown, strict=True)) == [
        ("test", "clean", 0.0, 1), ("test", "gaussian", 0.1, 2), ("test", "gaussian", 0.2, 1),
        ("test", "gaussian", 0.3, 2), ("test", "blur", 0.5, 1), ("train", "gaussian", 0.05, 1),
    ]  # fmt: skip


def number(**changes: Any) -> dict[str, Any]:
    base = {"run": "r1", "checkpoint": "best", "weights": "w", "seed": 0, "quantity": "eps_r", "value": 0.21}
    return base | {"kind": "certified_lower", "commit": "abc"} | changes


def test_numbers_come_back_with_types_and_the_last_of_a_quantity_wins(tmp_path):
    path = tmp_path / "numbers.csv"
    about_the_training = {"run": "r1", "quantity": "bsm_max", "value": 1.0, "kind": "measured"}
    results.append_numbers(path, [number(value=9), number(kind="attack_upper", value=0.7), about_the_training])
    results.append_numbers(path, [number(low=0.2, high=0.22)])
    frame = results.read_numbers(path)
    assert list(frame.columns) == list(results.NUMBERS.columns)
    assert frame["value"].tolist() == [0.7, 1.0, 0.21] and frame["low"].tolist()[2] == 0.2
    assert frame["weights"].tolist() == ["w", "", "w"] and np.isnan(frame["low"][0])
    assert results.read_numbers(tmp_path / "none.csv").empty


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"kind": "guess"}, "expected one of exact,"), ({"value": None}, "lacks .*value"), ({"epsilon": 1}, "unknown")],
)
def test_numbers_that_do_not_say_what_they_are_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        results.append_numbers(tmp_path / "numbers.csv", [number(), number(**changes)])
    assert not (tmp_path / "numbers.csv").exists()


def test_the_newest_weights_of_a_checkpoint_name_replace_the_older_ones(tmp_path):
    path = tmp_path / "results.csv"
    results.append_rows(path, [row(repeat=repeat, correct=10) for repeat in range(3)])
    results.append_rows(path, [row(checkpoint="last", weights="last", correct=20)])
    results.append_rows(path, [row(weights="new", correct=30, flow_discrete=0.5)])
    rows = results.read_rows(path)
    assert results.newest(rows)["weights"].tolist() == ["last", "new"]
    results.append_rows(path, [row(repeat=repeat, correct=10) for repeat in range(3)])  # the old ones put back
    assert results.newest(results.read_rows(path))["score"].tolist() == [0.2, 0.1, 0.1, 0.1]
    assert results.newest(rows.iloc[:0]).empty


def test_each_epoch_of_a_sweep_keeps_its_weights(tmp_path):
    path = tmp_path / "robustness_sweep.csv"
    sweep = [(0, "a"), (1, "cut off"), (1, "b")]
    results.append_rows(path, [row(epoch=epoch, weights=weights) for epoch, weights in sweep])
    assert results.newest(results.read_rows(path))["weights"].tolist() == ["a", "b"]


@pytest.mark.parametrize(("other", "fits"), [(0.9000001, True), (0.91, False), (float("inf"), False)])
def test_copies_of_one_measurement_have_one_certificate(tmp_path, other, fits):
    path = tmp_path / "results.csv"
    results.append_rows(path, [row(flow_discrete=0.9), row(repeat=1, flow_discrete=other)])
    if fits:
        assert results.summarise(results.read_rows(path))["repeats"].tolist() == [2]
    else:
        with pytest.raises(ValueError, match="several networks"):
            results.summarise(results.read_rows(path))


def test_epochs_tell_sweep_rows_apart(tmp_path):
    path = tmp_path / "robustness_sweep.csv"
    results.append_rows(path, [row(epoch=0), row(epoch=1)])
    assert results.read_rows(path)["epoch"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="epoch"):
        results.append_rows(path, [row(epoch=2), row()])
    with pytest.raises(BadInput, match="other columns"):
        results.append_rows(path, [row()])


def test_missing_files_are_empty_frames_with_columns(tmp_path):
    nowhere = tmp_path / "none.csv"
    assert results.read_rows(nowhere).empty and results.summarise(results.read_rows(nowhere)).empty
    assert list(METRICS.read(nowhere).columns) == list(METRICS.columns)
    assert list(BSM_NORMS.read(nowhere).columns) == list(BSM_NORMS.columns)


def test_a_resumed_log_keeps_the_last_value_of_a_step(tmp_path):
    path = tmp_path / "metrics.csv"
    log = [
        (0, 1, "train/loss", 2.0),
        (0, 2, "train/loss", 1.0),
        (0, 2, "train/loss", 0.5),
        (0, 1, "gamma", 3.0),
    ]
    METRICS.append(path, [dict(zip(METRICS.columns, r, strict=True)) for r in log])
    frame = METRICS.read(path)
    assert frame[frame["name"] == "train/loss"]["value"].tolist() == [2.0, 0.5]
    assert len(frame) == 3


OLD = (
    "run,checkpoint,weights,experiment,model,data,split,depth,integrator,params,seed,protocol,noise_seed,evaluation,"
    "suite,perturbation,norm,severity,severity_unit,space,solver,repeat,n,correct,correct_finer,accuracy,accuracy_low,"
    "accuracy_high,flow_ode,flow_discrete,end_to_end,seconds,commit"
).split(",")


def as_written(columns):
    return Table(dict.fromkeys(columns, str), key=())


def of_an_earlier_version(path, *rows, lacks=()):
    """A results.csv as the version wrote it that counted right answers."""
    as_written([name for name in OLD if name not in lacks]).append(path, rows)


def old_row(correct, n, reference=None, **changes):
    low, high = wilson(correct, n)
    found = {"n": n, "correct": correct, "correct_finer": reference, "accuracy": correct / n}
    shown = {name: value for name, value in row(**changes).items() if name in OLD}
    return shown | found | {"accuracy_low": low, "accuracy_high": high}


@pytest.mark.parametrize("lacks", [(), ("correct_finer", "end_to_end")])
def test_a_file_that_counted_right_answers_is_read_and_rewritten_with_the_same_numbers(tmp_path, lacks):
    path, fresh = tmp_path / "results.csv", tmp_path / "fresh.csv"
    counts = [(k, n) for n in (3, 7, 300, 9973) for k in sorted({0, 1, n // 3, n})]
    old = [old_row(k, n, k // 2, evaluation=f"{k}-{n}") for k, n in counts]
    of_an_earlier_version(path, *({key: each[key] for key in each if key not in lacks} for each in old), lacks=lacks)
    before = results.read_rows(path)
    results.RESULTS.prepare(path)
    assert path.read_text().splitlines()[0] == ",".join(results.COLUMNS)
    after = results.read_rows(path)
    assert after[list(before.columns)].equals(before) and list(after.columns) == list(results.COLUMNS)
    new = [row(correct=k, n=n, evaluation=f"{k}-{n}", score_reference=k // 2 / n) for k, n in counts]
    results.append_rows(fresh, new)
    for name in ("task", "score", "score_low", "score_high", *(() if lacks else ("score_reference",))):
        assert after[name].tolist() == results.read_rows(fresh)[name].tolist(), name
    assert results.summarise(after)["score"].tolist() == [k / n for k, n in counts]
    text = path.read_text()
    results.RESULTS.prepare(path)
    assert path.read_text() == text


def test_a_file_with_the_column_score_finer_is_read_and_rewritten_as_score_reference(tmp_path):
    path = tmp_path / "results.csv"
    names = ["score_finer" if name == "score_reference" else name for name in results.COLUMNS]
    as_written(names).append(path, [row(correct=80) | {"score_finer": 0.75}])
    assert results.read_rows(path)["score_reference"].tolist() == [0.75]
    results.RESULTS.prepare(path)
    assert path.read_text().splitlines()[0] == ",".join(results.COLUMNS)
    assert results.read_rows(path)["score_reference"].tolist() == [0.75]


def test_an_old_log_of_a_sweep_can_be_gone_on_with(tmp_path):
    path = tmp_path / "robustness_sweep.csv"
    as_written([*OLD, "epoch"]).append(path, [old_row(80, 100) | {"epoch": 0}])
    results.append_rows(path, [row(correct=90, epoch=1)])
    assert results.read_rows(path)[["epoch", "score"]].values.tolist() == [[0, 0.8], [1, 0.9]]


def test_other_scores_than_shares_bring_their_interval_and_keep_it_over_copies(tmp_path):
    path = tmp_path / "results.csv"
    error = {"task": str(Regression(2, "rad").measure), "score": 0.5, "score_low": 0.25, "score_high": 0.75}
    results.append_rows(
        path, [row(**error), row(repeat=1, **error | {"score": 1.0, "score_low": 0.5, "score_high": 1.5})]
    )
    (found,) = (line for _, line in results.summarise(results.read_rows(path)).iterrows())
    assert found[["score", "score_low", "score_high"]].tolist() == [0.75, 0.375, 1.125]
    for wrong in ({"score_low": None}, {"score_low": 0.6}, {"score_high": 0.4}):
        with pytest.raises(ValueError, match="score_low <= score <= score_high"):
            results.append_rows(path, [row(**error | wrong)])


def test_repeats_of_the_same_images_do_not_narrow_the_interval(tmp_path):
    path = tmp_path / "results.csv"
    counts = [70, 80, 90]
    rows = [row(repeat=repeat, correct=count) for repeat, count in enumerate(counts)]
    results.append_rows(path, [row(perturbation="clean", severity=None, correct=99), *rows])
    clean, noisy = (summary for _, summary in results.summarise(results.read_rows(path)).iterrows())
    assert (clean["perturbation"], clean["severity"], clean["repeats"]) == ("clean", 0.0, 1)
    assert (noisy["score"], noisy["n"], noisy["repeats"]) == (pytest.approx(0.8), 100, 3)
    assert noisy["score_std"] == pytest.approx(0.1)
    interval = (noisy["score_low"], noisy["score_high"])
    assert interval == pytest.approx(wilson(80, 100))
    pooled = wilson(sum(counts), 300)
    assert interval[1] - interval[0] > 1.5 * (pooled[1] - pooled[0])


def test_summary_interval_covers_the_true_accuracy_of_correlated_repeats():
    """Hard and easy images: the pooled interval would cover far less often than it says."""
    rng = np.random.default_rng(0)
    n, repeats, trials = 100, 10, 400
    covered = pooled_covered = 0
    for _ in range(trials):
        chance = rng.beta(0.4, 0.1, size=n)  # per image; mean 0.8
        correct = (rng.random((repeats, n)) < chance).sum(axis=1)
        low, high = wilson(correct.mean(), n)
        covered += low <= 0.8 <= high
        low, high = wilson(correct.sum(), n * repeats)
        pooled_covered += low <= 0.8 <= high
    assert covered / trials >= 0.95
    assert pooled_covered / trials < 0.75


def test_a_perturbation_whose_code_has_changed_shows_no_copy_and_no_level_of_the_old_one(tmp_path):
    """Three copies at two levels by one code, then one copy at one level by another: only that one is left."""
    old = [row(code="net.old", evaluation="e", severity=s, repeat=r) for s in (0.1, 0.2) for r in range(3)]
    clean = row(code="net.clean", evaluation="c", perturbation="clean", severity=0.0)
    results.append_rows(tmp_path / "results.csv", [clean, *old, row(code="net.new", evaluation="e", severity=0.1)])
    shown = results.newest(results.read_rows(tmp_path / "results.csv"))
    assert sorted(zip(shown["code"], shown["severity"], strict=True)) == [("net.clean", 0.0), ("net.new", 0.1)]


def test_what_todays_code_measured_goes_before_later_answers_of_other_code(tmp_path):
    path, today = tmp_path / "results.csv", Today("net1", frozenset({"old"}))
    results.append_rows(path, [row(correct=10, code="net1.q"), row(correct=15, code="net1.q", severity=0.3)])
    results.append_rows(path, [row(correct=20, code="net2.q"), row(correct=25, code="net1.old")])
    rows = results.read_rows(path)
    assert results.newest(rows)["score"].tolist() == [0.25], "without knowing today's code the last counts"
    shown = results.newest(rows, today)
    assert shown[["score", "other_code"]].values.tolist() == [[0.1, False], [0.15, False]]
    shown = results.newest(rows[rows["code"] != "net1.q"], today)
    assert shown[["score", "other_code"]].values.tolist() == [[0.25, True]], "rather the network of today at least"
    shown = results.newest(rows[rows["code"] == "net2.q"], today)
    assert shown[["score", "other_code"]].values.tolist() == [[0.2, True]]
    results.append_rows(path, [row(weights="new", correct=30, code="")])
    shown = results.newest(results.read_rows(path), today)
    assert shown[["weights", "other_code"]].values.tolist() == [["new", True]], "weights that are gone have no say"
    assert results.newest(rows.iloc[:0], today).empty


def test_numbers_of_todays_code_go_before_later_ones_of_other_code(tmp_path):
    path, today = tmp_path / "numbers.csv", Today("net1", frozenset())
    numbers = [number(code="net1.q", value=1), number(code="net2.q", value=2), number(code="net2.q", quantity="gap")]
    results.append_numbers(path, numbers)
    assert results.read_numbers(path)["value"].tolist() == [2, 0.21]
    shown = results.read_numbers(path, today)
    assert shown[["value", "other_code"]].values.tolist() == [[1, False], [0.21, True]]
