"""What settings are chosen by: the validation score, in the summary of a sweep and in the table of runs."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from small_tables import run_folder

from robode.config.jobs import Job, Outcome, Result
from robode.errors import BadInput
from robode.papers.publish import _read
from robode.report.paper_page import write_runs_report
from robode.report.sweep import show_forecasts, show_outcomes, told_apart
from robode.report.values import RUNS
from robode.runs.run import Run
from robode.runs.table import METRICS
from robode.tasks.measure import CLASSIFICATION
from robode.training.forecast import Forecast

COMMON = ("model=chnode", "data=moons")
BY_VALIDATION = {0.1: 0.75, 0.01: 0.9, 0.001: 0.8}  # lr -> the best epoch's; the test scores say 0.1
CORRECT = {0.1: 89, 0.01: 80, 0.001: 70}
DIFFERENT = {"model": {"width": 6, "kappa": 0.5}, "batch_size": 7, "epochs": 3}


def validated(folder, best, name="validation/accuracy"):
    """A log whose last epoch is not its best."""
    scores = (best - 0.2, best, best - 0.1)
    METRICS.append(
        folder / "metrics.csv",
        [{"epoch": i, "step": i, "name": name, "value": score} for i, score in enumerate(scores)],
    )
    return folder


@pytest.fixture
def folders(tmp_path):
    runs = tmp_path / "runs"
    return [validated(run_folder(runs, 1, CORRECT[lr], lr=lr), best) for lr, best in BY_VALIDATION.items()]


def said(show, *arguments, terminal=False):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    show(*arguments, console)
    return console.file.getvalue().splitlines()


def outcome(folder, lr, score):
    result = Result(run=folder, task=str(CLASSIFICATION), score=score)
    return Outcome((*COMMON, f"lr={lr}"), result=result)


def test_a_sweep_names_the_run_that_is_best_by_validation(folders):
    outcomes = [outcome(folder, lr, CORRECT[lr] / 100) for folder, lr in zip(folders, BY_VALIDATION, strict=True)]
    lines = said(show_outcomes, [*outcomes, Outcome((*COMMON, "lr=9"), 1, "NaN loss", state="failed")])
    head = lines[0].split("  ")
    assert [each.strip() for each in head if each] == ["job", "ended", "validation", "clean (test)", "overrides", "run"]
    assert lines[2].split() == ["1", "done", "90.0", "%", "80.0", "%", "lr=0.01", str(folders[1])]
    assert "lr=9" in lines[4] and not any(word in line for word in COMMON for line in lines)
    assert f"best by validation: job 1, 90.0 %, {folders[1]}" in lines
    assert lines[-1] == "sweep: 4 jobs, 0 reused, 1 failed"


def test_without_validation_data_a_sweep_has_no_best_run(tmp_path):
    folders = [run_folder(tmp_path, 1, 80, lr=lr) for lr in (0.1, 0.2)]
    lines = said(show_outcomes, [outcome(folder, 1, 0.8) for folder in folders])
    assert "validation" not in lines[0] and "clean (test)" in lines[0] and not any("best" in line for line in lines)


def test_a_damaged_log_does_not_hide_how_a_sweep_ended(folders):
    (folders[0] / "metrics.csv").write_bytes(b"\xff\xfe\x00nonsense\n1\n")
    outcomes = [outcome(folder, lr, 0.8) for folder, lr in zip(folders, BY_VALIDATION, strict=True)]
    lines = said(show_outcomes, outcomes)
    assert " – " in lines[1] and lines[-1] == "sweep: 3 jobs, 0 reused, 0 failed"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_dry_run_shows_the_words_that_differ_and_breaks_no_name(terminal):
    words = [(*COMMON, f"lr={lr}", "suite=[gaussian,clean]") for lr in (0.1, 0.01)]
    runs = [Run(Path("outputs/a_long_experiment/name") / f"{'chnode-mnist5k-' * 4}{i}") for i in range(2)]
    jobs = [Job(each, None) for each in words]
    lines = said(show_forecasts, jobs, [Forecast(run, "not started", 40.0) for run in runs], terminal=terminal)
    for run, lr in zip(runs, ("lr=0.1", "lr=0.01"), strict=True):
        (job,) = (i for i, line in enumerate(lines) if lr in line.split())
        assert "40 s" in lines[job] and lines[job + terminal].endswith(str(run.folder))
    assert lines[-1] == "2 jobs: about 80 s of training left"


def test_jobs_are_told_apart_by_what_not_all_have():
    assert told_apart([("a=1", "b=2"), ("a=1", "b=3"), ("a=1",)]) == ["b=2", "b=3", ""]
    assert told_apart([("a=1", "b=2")]) == ["a=1 b=2"]
    assert told_apart([]) == []


def test_a_table_of_runs_has_the_validation_score_first_and_marks_the_test_columns(folders, tmp_path):
    report = write_runs_report(tmp_path / "report", folders, {})
    assert report.table.columns == ("validation", "test clean", "test gaussian 0.05", "test gaussian 0.2")
    assert report.table.summary.endswith(f"best by validation: chnode, N = 4, lr=0.01, 90.0 %, run {folders[1].name}")
    page = report.page.read_text()
    assert "choose by this" in page and "best by validation" in page
    (line,) = (line for line in (report.page.parent / "runs.csv").read_text().splitlines() if "lr=0.01" in line)
    assert line.split('"')[2].split(",")[6] == "0.9"


@pytest.mark.parametrize(
    ("column", "order"), [("validation", [0.01, 0.001, 0.1]), ("test gaussian 0.05", [0.1, 0.01, 0.001])]
)
def test_a_table_of_runs_is_sorted_by_a_column_the_best_first(folders, tmp_path, column, order):
    missing = run_folder(tmp_path / "more", 1, 10, lr=5.0)
    report = write_runs_report(tmp_path / "report", [missing, *folders], {}, column)
    labels = [line.label for _, lines in report.table.groups for line in lines]
    assert labels == [f"chnode, N = 4, lr={lr}" for lr in (*order, 5.0)], "what has no such score comes last"
    runs = report.page.read_text().partition("<h2>Runs</h2>")[2]
    assert [runs.index(f"lr={lr}</summary>") for lr in order] == sorted(
        runs.index(f"lr={lr}</summary>") for lr in order
    )
    for lr, line in zip(order, report.table.groups[0][1], strict=False):
        assert line.cells[0].number == f"{100 * BY_VALIDATION[lr]:.2f}", "cells move with their rows"


def test_an_unknown_column_to_sort_by_is_refused_with_the_choices(folders, tmp_path):
    with pytest.raises(BadInput, match=r"^sort=validatoin: .*did you mean 'validation'\?"):
        write_runs_report(tmp_path / "report", folders, {}, "validatoin")
    assert not (tmp_path / "report").exists()


def test_of_errors_the_smallest_is_best(tmp_path):
    from robode.report.listing import best
    from robode.report.values import validation_score
    from robode.tasks.regression import Regression

    measure = Regression("rad").measure
    folder = validated(run_folder(tmp_path, 1, 80), 0.5, f"validation/{measure.score_name}")
    assert validation_score(folder, measure) == pytest.approx(0.3)
    assert best([0.5, 0.3, float("nan")], measure) == 1 and best([0.5, 0.3], CLASSIFICATION) == 0


def test_labels_have_every_word_that_differs(tmp_path):
    folders = [run_folder(tmp_path / "runs", 1, 80), run_folder(tmp_path / "runs", 1, 80, lr=0.5, **DIFFERENT)]
    labels = [line.label for line in write_runs_report(tmp_path / "report", folders, {}).table.groups[0][1]]
    assert all(word in labels[1] for word in ("lr=0.5", "width=6", "kappa=0.5", "batch_size=7", "epochs=3"))
    assert "…" not in labels[1]


def test_published_tables_without_a_validation_column_are_read(tmp_path):
    names = [name for name in RUNS if name not in ("row", "validation")]
    (tmp_path / "runs.csv").write_text(f"{','.join(names)}\n{','.join('1' for _ in names)}\n")
    found = _read(tmp_path / "runs.csv", RUNS, {("1", "1"): 0})
    assert list(found) == list(RUNS) and found["validation"].isna().all()
