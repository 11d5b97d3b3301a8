"""Data without classes, from training to the page: the score is an error, less is better, nothing is in percent."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_runs import composed

from robode.api.evaluation import run_evaluation
from robode.api.training import run_training
from robode.errors import BadInput
from robode.report.paper_page import write_runs_report
from robode.runs import results
from robode.runs.checkpoints import read_checkpoint
from robode.runs.run import Run, find
from robode.runs.scores import read_scores
from robode.runs.table import METRICS
from robode.tasks.flow_map import FlowMap
from robode.tasks.measure import measure_named
from robode.tasks.regression import Regression
from robode.training.assembly import assemble

WORDS = (
    "data=pendulum", "data.source.train=300", "data.source.test=100", "data.validation=60", "model=resnet", "depth=2",
    "batch_size=25", "epochs=4", "lr=0.02", "suite=noise", "repeats=2", "trainer.threads=1",
)  # fmt: skip
MODE = "callbacks.early_stopping.mode"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("regression"))
        found = find(run_training(composed(*WORDS), WORDS).run)[0]
        return Run(found.folder.resolve())


def test_the_data_choose_the_objective_and_the_command_line_wins():
    assert list(composed("data=pendulum").objective) == ["mean_squared_error"]
    assert list(composed("data=pendulum", "objective=jacobian_penalty").objective) == ["jacobian_penalty"]
    assert list(composed("data=mnist5k").objective) == ["cross_entropy"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("data=pendulum", f"objective={name}"), f"objective={name} and data=pendulum: expected data with classes")
        for name in (
            "cross_entropy", "margin_cross_entropy", "margin_hinge", "adversarial", "trades", "noisy_cross_entropy",
            "kantorovich",
        )
    ]
    + [
        (("data=double_moons", "objective=mean_squared_error"), "expected data whose targets are numbers"),
        (("data=mnist5k", "objective=kantorovich"), "expected data of two classes, got 10"),
        (
            ("data=pendulum", "callbacks=[default,early_stopping]"),
            "callbacks.early_stopping.monitor=validation/accuracy: expected validation/loss or validation/error",
        ),
        (
            (*WORDS, "callbacks=early_stopping", "callbacks.early_stopping.monitor=validation/error"),
            f"{MODE}=max: validation/error gets better by getting smaller; expected {MODE}=min",
        ),
        (
            (*WORDS, "callbacks=early_stopping", "callbacks.early_stopping.monitor=validation/loss"),
            f"{MODE}=max: validation/loss gets better by getting smaller; expected {MODE}=min",
        ),
    ]
    + [
        ((*WORDS, *words), expected)
        for words, expected in (
            (
                ("suite=attacks_standard",),
                "suite.ensemble_linf: needs classes, and this is a flow_map task; leave it out "
                "(suite.ensemble_linf=null), or choose a suite for all data, such as attacks_quick",
            ),
            (("suite=[noise,attacks_standard]",), "suite.ensemble_linf: needs classes"),
            (("suite=curve_l2",), "suite.fmn_l2: needs classes"),
            (("suite=corruptions",), "suite.blur: blur is defined for images"),
            (("suite=gradient_masking",), "suite.gradient_masking: needs classes"),
            (("suite=attacks_quick", "suite.pgd_l2.loss=foo"), "suite.pgd_l2.loss=foo: choose one of: null, error"),
            (("suite=attacks_quick", "suite.pgd_linf.loss=dlr"), "suite.pgd_linf.loss=dlr: choose one of: null, error"),
            (("suite=table1_attacks",), "suite.pgd_margin_linf.loss=margin: choose one of: null, error"),
            (("suite=attacks_quick", "suite.pgd_l2.steps=0"), "suite.pgd_l2.steps=0: expected integer >= 1"),
            (("suite=attacks_quick", "suite.pgd_l2.norm=l3"), "suite.pgd_l2.norm=l3: choose one of: linf, l2, l1"),
        )
    ],
)  # fmt: skip
def test_what_the_task_cannot_serve_is_refused_before_there_is_a_folder(
    words: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        run_training(composed("model=resnet", *words), words)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.rglob("*.yaml")) == []


def test_the_network_has_an_output_for_each_number_of_a_target():
    parts = assemble(composed(*WORDS))
    assert parts.network.info.task == FlowMap(2, "rad", 0.5, ("energy",))
    assert parts.network(parts.data.split("test").x[:5]).shape == (5, 2)


@pytest.mark.slow
def test_training_logs_the_error_and_keeps_the_smallest(run: Run):
    metrics = METRICS.read(run.folder / "metrics.csv")
    names = set(metrics["name"])
    assert {"train/loss", "train/error", "validation/loss", "validation/error"} <= names
    assert not any("accuracy" in name for name in names)
    errors = metrics[metrics["name"] == "validation/error"]
    best = read_checkpoint(run.best)["global_step"]
    assert best == errors["step"].iloc[errors["value"].argmin()]
    assert errors["value"].iloc[-1] < errors["value"].iloc[0]


def test_a_run_of_a_pendulum_from_before_flow_maps_opens_and_is_measured(run: Run, tmp_path: Path):
    """Its configuration says task: regression, and nothing of flow maps."""
    older = tmp_path / "older"
    shutil.copytree(run.folder, older)
    config = older / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert text.count("task: flow_map") == 1
    config.write_text(text.replace("task: flow_map", "task: regression"), encoding="utf-8")
    run_evaluation(composed(f"run={older}", "suite=trajectory", "suite.trajectory.time=5", verb="evaluate"))
    found = results.read_numbers(older / "numbers.csv")
    assert {"energy_drift", "phase_error"} <= set(found["quantity"])


def test_rows_hold_mean_errors_with_intervals_and_files_one_error_a_sample(run: Run):
    rows = results.read_rows(run.folder / "results.csv")
    assert {str(measure_named(text)) for text in rows["task"]} == {"flow_map: error in rad (lower is better)"}
    assert set(rows["perturbation"]) == {"clean", "gaussian"}, "salt and pepper need bounds"
    mean = rows.groupby("severity")["score"].mean()
    assert mean[0.0] < mean[0.05] < mean[0.2]
    for row in rows.to_dict("records"):
        errors = read_scores(run.folder, row)
        assert errors.dtype == np.float32 and len(errors) == 100 and (errors > 0).all()
        assert row["score"] == pytest.approx(errors.mean(dtype=np.float64), rel=1e-12)
        assert (row["score_low"], row["score_high"]) == pytest.approx(Regression(2, "rad").interval(errors))
    sweep = results.read_rows(run.folder / "robustness_sweep.csv")
    assert set(sweep["epoch"]) == {0, 1, 2, 3} and sweep["task"].nunique() == 1


def test_the_page_speaks_of_errors_in_their_unit(run: Run):
    page = (run.folder / "report.html").read_text()
    text = re.sub(r"<[^>]+>|data:image[^\"]*", " ", page)
    assert "Clean error (rad)" in text and "Error against noise" in text and "lower is better" in text
    assert "ccuracy" not in text.split("Configuration")[0] and "Wilson" not in text
    shown = text.split("Results")[1].split("Error is the mean")[0]
    assert "%" not in shown.replace("95 % interval", "")
    names = {path.stem for path in (run.folder / "figures").glob("*.png")}
    assert {"error_against_noise", "error_by_epoch", "training_curves"} <= names and "noise_grid" not in names
    assert not (run.folder / "samples.npz").exists()


def test_a_table_of_runs_has_the_unit_of_the_task(run: Run, tmp_path: Path):
    write_runs_report(tmp_path, [run.folder], {})
    table = (tmp_path / "table.csv").read_text()
    assert "rad" in table and "%" not in table
    clean = results.read_rows(run.folder / "results.csv").query("perturbation == 'clean'")["score"].iloc[0]
    text = (tmp_path / "table.md").read_text()
    assert f"{clean:.4g}" in text and "Scores in rad." in text and "percent" not in text


def test_an_evaluation_later_measures_what_is_missing_alone(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.folder.parents[2])
    before = (run.folder / "results.csv").read_text()
    words = (f"run={run.folder}", "suite=clean", "protocol=data_space", "repeats=1")
    result = run_evaluation(composed(*words, verb="evaluate"))
    assert (run.folder / "results.csv").read_text() == before
    assert result.score > 0 and measure_named(result.task).better == "lower"


@pytest.mark.slow
def test_under_attack_and_certified_clean_is_best_and_the_proof_worst(run, monkeypatch: pytest.MonkeyPatch):
    """Clean <= attacked <= certified, for every sample, at every radius; measured without training again."""
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = (f"run={run.folder}", "suite=[clean,curve_l2,certified]", "suite.fmn_l2=null",
             "suite.certified.radii=[0,0.25,0.5]",
             "suite.pgd_l2.eps=[0.25,0.5]", "suite.pgd_l2.steps=10")  # fmt: skip
    found = run_evaluation(composed(*words, verb="evaluate")).rows
    scores = {(row["perturbation"], row["severity"]): read_scores(run.folder, row) for row in found}
    clean, proven = scores["clean", 0.0], {r: scores["certified", r] for r in (0.0, 0.25, 0.5)}
    for eps in (0.25, 0.5):
        attacked = scores["pgd_l2", eps]
        assert (clean <= attacked).all() and (attacked <= proven[eps]).all() and attacked.mean() > clean.mean()
    assert (scores["pgd_l2", 0.25] <= scores["pgd_l2", 0.5]).all()
    assert (clean <= proven[0.0]).all() and (proven[0.0] <= proven[0.25]).all()
