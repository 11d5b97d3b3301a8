"""After every evaluation each attacked accuracy has a verdict: what `robode evaluate` keeps and says."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from masked_models import Quantised, Shouting, Sine, data_named, honest
from rich.console import Console
from small_runs import composed, train
from torch import nn

from robode.api.evaluation import measured
from robode.config.validate import check
from robode.errors import BadInput
from robode.evaluation.request import Described
from robode.evaluation.target import EvaluationTarget
from robode.masking import reference_attacks
from robode.masking import verdict as masking_verdict
from robode.masking.file import FILE, PASSES, failures, key_of, read_part
from robode.masking.reference_attacks import GradientMasking
from robode.papers.plan import missing
from robode.report.masking_section import masking_section
from robode.report.page import write_page
from robode.runs.run import Run

QUICK = ("suite=attacks_quick", "suite.fgsm_linf.eps=0.1", "suite.pgd_linf.eps=0.1", "suite.pgd_l2.eps=0.6")
LINF, L2 = (*QUICK[:3], "~suite.pgd_l2"), (QUICK[0], QUICK[3], "~suite.fgsm_linf", "~suite.pgd_linf")
SMALL, TINY = ("limit=80", "verdicts=40"), ("limit=40", "verdicts=20")
PROVEN = (
    "suite=[clean,attacks_quick,certified]", "suite.pgd_l2.eps=0.005", "suite.certified.radii=0.005",
    "~suite.pgd_linf", "~suite.fgsm_linf",
)  # fmt: skip


@functools.cache
def asked(*words: str):
    return composed("run=RUN", "seed=0", *words, verb="evaluate")


def evaluate(network: nn.Module, folder: Path, *words: str, suite: tuple[str, ...] = QUICK):
    """`robode evaluate` of a module on 80 images; the verdicts in masking.json by (perturbation, eps)."""
    cfg, data = asked(*suite, *(SMALL if not words else words)), data_named("bars")
    found = EvaluationTarget(
        Run(folder), network, data, folder / "w.pt", Described(model="bars", data=data.name, nodes={}), {}
    )
    rows = measured(found, cfg, Console()).rows
    verdicts = {(each["perturbation"], each["eps"]): each for each in read_part(folder, "verdicts")}
    attacked = {(row["perturbation"], row["severity"]) for row in rows if row["severity_unit"] == "eps"}
    assert attacked <= set(verdicts) or "verdicts=0" in words
    return verdicts


@pytest.fixture
def untouchable(monkeypatch):
    def forbid():
        for name in ("measure_panel", "measure_climb"):
            monkeypatch.setattr(reference_attacks, name, None)
        monkeypatch.setattr(masking_verdict, "substitutes", None)

    return forbid


@pytest.mark.slow
def test_an_honest_network_is_examined_once_and_for_all(tmp_path, capsys, untouchable):
    found = evaluate(honest("chnode", "bars"), tmp_path)
    assert all(
        each["verdict"] == f"passes {len(each['checks'])} gradient-masking checks"
        for key, each in found.items()
        if key[0] != "fgsm_linf"
    )
    said = masking_verdict.lines([*found.values()])
    assert said and "\n".join(said) + "\n" == capsys.readouterr().out
    before = (tmp_path / FILE).read_bytes()
    untouchable()
    assert evaluate(honest("chnode", "bars"), tmp_path) == found and (tmp_path / FILE).read_bytes() == before
    section = masking_section(json.loads(before), None)
    assert section.judged[1].robust_accuracy == (f"{100 * found['pgd_linf', 0.1]['robust_accuracy']:.1f} %")
    page = write_page(tmp_path).read_text()
    assert page.count("<summary>passes ") == sum(each["passes"] for each in found.values())


def test_many_rows_that_pass_share_a_line():
    def entry(name: str, eps: float, verdict: str) -> dict:
        about = {"perturbation": name, "eps": eps, "robust_accuracy": 0.9712, "verdict": verdict}
        return about | {"passes": verdict.startswith(PASSES)}

    rows = [entry("pgd_l2", eps, "passes 9 gradient-masking checks") for eps in (0.1, 0.2)]
    assert masking_verdict.lines(rows)[1] == "pgd_l2 eps 0.2: robust accuracy 97.1 %, passes 9 gradient-masking checks"
    rows += [entry("ensemble_l2", 0.1, "passes without checks: 96.7 of the 97.1 % are proven")]
    rows += [entry("fgsm_linf", 0.1, "fails 1 of 8 gradient-masking checks: PGD finds 61.0 % more")]
    assert masking_verdict.lines(rows) == [
        "fgsm_linf eps 0.1: robust accuracy 97.1 %, fails 1 of 8 gradient-masking checks: PGD finds 61.0 % more",
        "3 of 4 robust accuracies pass gradient-masking checks, 1 of them proven: pgd_l2 eps 0.1, 0.2; "
        "ensemble_l2 eps 0.1",
    ]


@pytest.mark.parametrize(
    ("hidden", "names", "suite"),
    [
        (Quantised, {"zero_gradients", "transfer"}, LINF),
        (Sine, {"smoothed_gradients", "transfer", "black_box"}, L2),
        pytest.param(Shouting, {"logit_rescaling", "saturation"}, LINF, marks=pytest.mark.slow),
        pytest.param(Quantised, {"zero_gradients", "transfer"}, QUICK, marks=pytest.mark.slow),
    ],
)
def test_a_masked_network_fails_in_every_row_that_lies(hidden, names, suite, tmp_path, capsys):
    found = evaluate(hidden(honest("chnode", "bars")), tmp_path, suite=suite)
    name, eps = key = ("pgd_l2", 0.6) if suite is L2 else ("pgd_linf", 0.1)
    row = found[key]
    assert not row["passes"] and {c["name"] for c in row["checks"] if not c["passed"]} >= names
    assert not any(each["passes"] for each in found.values()) and row["robust_accuracy"] > 0.5
    lines = capsys.readouterr().out
    assert f"{name} eps {eps}: robust accuracy {100 * row['robust_accuracy']:.1f} %, fails " in lines
    assert failures(tmp_path)[key_of(row)] == row["verdict"].partition("checks: ")[2]
    page = write_page(tmp_path).read_text()
    assert "<summary>fails " in page and "Other attacks in the same ball" in page


def test_what_is_certified_is_proven_and_nothing_is_measured(tmp_path, untouchable):
    untouchable()
    found = evaluate(honest("chnode", "bars"), tmp_path, suite=PROVEN)
    (verdict,) = (each["verdict"] for each in found.values())
    assert verdict.startswith("passes without checks: ") and verdict.endswith(" % are proven")
    assert not read_part(tmp_path, "panels") and "<td>passes without checks: " in write_page(tmp_path).read_text()


@pytest.mark.slow
def test_a_row_that_comes_later_speaks_against_those_before(tmp_path):
    network = honest("resnet", "bars")
    before = evaluate(network, tmp_path, suite=(*QUICK[:2], "~suite.pgd_linf", "~suite.pgd_l2"))["fgsm_linf", 0.1]
    assert "checks: Square finds " in before["verdict"], "by the panel"
    after = evaluate(network, tmp_path, suite=(QUICK[0], *LINF[2:], "~suite.fgsm_linf"))
    assert ": PGD finds " in after["fgsm_linf", 0.1]["verdict"] and after["pgd_linf", 0.1]["passes"]
    assert "saturated" not in after["fgsm_linf", 0.1]["verdict"] and len(after) == 2
    assert len([each for each in read_part(tmp_path, "panels") if "eps" in each]) == 1


@pytest.mark.slow
def test_training_decides_too_and_its_configuration_does_not_change(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    run = train("epochs=1", "suite=attacks_quick", "~suite.fgsm_linf", "~suite.pgd_l2", "suite.pgd_linf.eps=0.1")
    (verdict,) = read_part(run.folder, "verdicts")
    assert (
        f"eps 0.1: robust accuracy {100 * verdict['robust_accuracy']:.1f} %, {verdict['verdict']}"
        in capsys.readouterr().out
    )
    assert (
        "verdicts" not in run.config().plain()
        and "<h2>Gradient-masking checks</h2>" in (run.folder / "report.html").read_text()
    )
    assert missing(run, run.config(), []) == 0
    (run.folder / FILE).write_text("{}")
    assert missing(run, run.config(), []) == 1, "a reproduction goes back to a run that has no verdict yet"


def test_zero_means_no_verdicts_and_less_is_refused(tmp_path):
    network = honest("chnode", "bars")
    assert evaluate(network, tmp_path, "verdicts=0") == {} and not (tmp_path / FILE).exists()
    with pytest.raises(BadInput, match=r"^verdicts=-1: expected a whole number of at least 0.*$"):
        check(asked("verdicts=-1"))


@pytest.mark.slow
def test_files_of_earlier_versions_are_kept_and_damaged_parts_are_made_again(tmp_path):
    network, data = honest("chnode", "bars"), data_named("bars")
    GradientMasking(samples=40, steps=5, queries=10).measure(network, data, tmp_path)
    (record,) = read_part(tmp_path, "records")
    assert list(json.loads((tmp_path / FILE).read_text())) == ["records"] and failures(tmp_path) == {}
    found = evaluate(network, tmp_path, *TINY, suite=LINF)
    GradientMasking(samples=40, steps=5, queries=10, seed=1).measure(network, data, tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    assert content["records"][0] == record and len(content["records"]) == 2 and len(content["verdicts"]) == len(found)
    content["panels"][0]["bits"] = {"noise": "01"}
    content["panels"][1] = 3
    content["verdicts"] = [{"eps": "?"}, "x", *content["verdicts"]]
    (tmp_path / FILE).write_text(json.dumps(content))
    assert evaluate(network, tmp_path, *TINY, suite=LINF) == found
    again = json.loads((tmp_path / FILE).read_text())
    assert all(masking_verdict.read(each) for each in again["panels"]) and len(again["panels"]) == len(
        content["panels"]
    )


@pytest.mark.slow
def test_a_kill_costs_one_panel(tmp_path, monkeypatch):
    calls, measure = [], reference_attacks.measure_panel

    def interrupted(*rest):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*rest)

    monkeypatch.setattr(reference_attacks, "measure_panel", interrupted)
    network = honest("chnode", "bars").train()
    with pytest.raises(KeyboardInterrupt):
        evaluate(network, tmp_path, *TINY)
    assert network.training and len(read_part(tmp_path, "panels")) >= 1
    found = evaluate(network.eval(), tmp_path, *TINY)
    assert len(calls) == 3 and len(found) == 3, "two panels, and the one that was cut off"
