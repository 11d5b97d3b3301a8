"""The page of a run: made from whatever files there are, self-contained, everything escaped."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from robode.errors import JobFailed
from robode.report import tables
from robode.report.figures import draw_figures
from robode.report.page import write_page
from robode.runs import results
from robode.runs.code import measuring_code
from robode.runs.table import BSM_NORMS, METRICS
from robode.tasks.measure import CLASSIFICATION, measure_named


def row(correct=0, **changes):
    measured = {"perturbation": "gaussian", "severity": 0.05, "severity_unit": "variance", "n": 100}
    measured |= {"task": str(CLASSIFICATION), "score": correct / 100}
    claims = {"protocol": "data_space", "split": "test", "flow_ode": 0.9, "flow_discrete": float("inf")}
    network = {"checkpoint": "best", "weights": "0a1b2c3d4e5f", "seed": 3, "noise_seed": 3}
    network["code"] = measuring_code({}, None)  # of a network whose configuration names no class
    return dict.fromkeys(results.COLUMNS) | measured | claims | network | changes


def fill(folder):
    """A run folder with every file that the report reads."""
    noisy = [
        row(repeat=repeat, severity=level, correct=correct + repeat)
        for level, correct in ((0.05, 80), (0.2, 50))
        for repeat in (0, 2)
    ]
    clean = row(perturbation="clean", severity_unit="none", severity=0.0, correct=97)
    results.append_rows(folder / "results.csv", [clean, *noisy])
    results.append_rows(folder / "robustness_sweep.csv", [r | {"epoch": 0, "split": "validation"} for r in noisy])
    losses = [{"epoch": 0, "step": step, "name": "train/loss", "value": 1 / step} for step in (1, 2, 3)]
    METRICS.append(folder / "metrics.csv", losses)
    norms = {name: 0.9 for name in BSM_NORMS.columns} | {"step": 0, "layer": 1}
    BSM_NORMS.append(folder / "bsm.csv", [norms])
    np.savez(folder / "samples.npz", x=np.zeros((1, 2, 4, 4)), labels=[0, 1], predictions=[[0, 0]], names=["clean"])
    config = {"model": {"name": "chnode"}, "data": {"name": "mnist5k"}, "depth": 8, "seed": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"protocol": {"name": "data_space"}}))
    (folder / "status.json").write_text(json.dumps({"status": "done", "warnings": ["hcγ is <b>large</b>"]}))
    argv = ["robode", "train", "model=chnode", "suite=[noise,clean]"]
    (folder / "environment.json").write_text(json.dumps({"argv": argv, "versions": {"torch": "2.14.1"}}))


def test_the_headline_is_about_one_set_of_samples(tmp_path):
    fill(tmp_path)
    part = {"n": 20, "evaluation": "part"}
    clean = row(perturbation="clean", severity_unit="none", severity=0.0, score=0.95, **part)
    results.append_rows(tmp_path / "results.csv", [clean, row(severity=0.4, score=0.35, **part)])
    headline, table = write_page(tmp_path).read_text().split("<h2>Results")
    assert "97.0 %" in headline and "81.0 %" in headline and "35.0 %" not in headline and "35.0 %" in table
    assert "more was measured on other numbers of samples: see Results" in headline


def test_the_headline_does_not_deny_what_was_measured_on_a_part(tmp_path):
    fill(tmp_path)
    (tmp_path / "results.csv").unlink()
    clean = row(perturbation="clean", severity_unit="none", severity=0.0, correct=97)
    results.append_rows(tmp_path / "results.csv", [clean])
    assert write_page(tmp_path).read_text().count("not measured") == 1
    results.append_rows(tmp_path / "results.csv", [row(severity=0.4, score=0.35, n=20, evaluation="part")])
    page = write_page(tmp_path).read_text()
    assert "not measured" not in page and "was measured on other numbers of samples: see Results" in page


@pytest.mark.slow
def test_a_full_run_gives_every_section(tmp_path):
    fill(tmp_path)
    drawn = draw_figures(tmp_path)
    assert sorted(path.stem for path in drawn) == [
        "accuracy_against_noise", "accuracy_by_epoch", "bsm_norms", "noise_grid", "training_curves",
    ]  # fmt: skip
    page = write_page(tmp_path).read_text()
    for text in (
        "chnode on mnist5k",
        "97.0 %",
        "81.0 %",
        "51.0 %",
        "1-Lipschitz",
        "no certificate",
        "2.14.1",
    ):
        assert text in page
    assert "robode train model=chnode &#39;suite=[noise,clean]&#39;" in page
    assert page.count("data:image/png;base64,") == 5


def test_the_page_is_self_contained_and_escaped(tmp_path):
    fill(tmp_path)
    page = write_page(tmp_path).read_text()
    assert "hcγ is &lt;b&gt;large&lt;/b&gt;" in page and "<b>large" not in page
    assert not re.findall(r"https?://|<script|<link|@import|url\(", page)


@pytest.mark.parametrize(
    ("missing", "section"),
    [
        ("results.csv", "Clean accuracy"),
        ("config.yaml", "Configuration"),
        ("status.json", "Warning"),
        ("environment.json", "Reproduce"),
    ],
)
def test_a_missing_file_costs_its_own_section_only(tmp_path, missing, section):
    fill(tmp_path)
    assert section in write_page(tmp_path).read_text()
    (tmp_path / missing).unlink()
    page = write_page(tmp_path).read_text()
    assert section not in page and "could not be read" not in page


@pytest.mark.slow
def test_figures_without_their_file_are_left_out(tmp_path, caplog):
    fill(tmp_path)
    for name in ("results.csv", "metrics.csv", "robustness_sweep.csv", "samples.npz"):
        (tmp_path / name).unlink()
    assert [path.stem for path in draw_figures(tmp_path)] == ["bsm_norms"]
    page = write_page(tmp_path).read_text()
    assert "Backward sensitivity" in page and "Samples" not in page and not caplog.records


def test_a_log_without_a_finite_value_gives_no_figure(tmp_path):
    log = [{"epoch": None, "step": 1, "name": "train/loss", "value": float("nan")}]
    METRICS.append(tmp_path / "metrics.csv", log)
    assert draw_figures(tmp_path) == []


def test_an_empty_folder_gives_a_page(tmp_path):
    assert draw_figures(tmp_path) == []
    assert tmp_path.name in write_page(tmp_path).read_text()


@pytest.mark.slow
def test_damaged_files_are_named_and_cost_their_section_only(tmp_path, caplog):
    fill(tmp_path)
    (tmp_path / "samples.npz").write_bytes(b"PK half a zip")
    (tmp_path / "bsm.csv").write_bytes(b"step,layer\n1,2,3,4\n1,2\n\xff\n")
    (tmp_path / "config.yaml").write_text("a: [1")
    (tmp_path / "environment.json").write_text("[1, 2]")
    assert len(draw_figures(tmp_path)) == 3
    assert {"noise_grid", "bsm_norms"} == {record.args[0] for record in caplog.records}
    page = write_page(tmp_path).read_text()
    assert "config.yaml could not be read" in page and "environment.json could not be read" in page
    assert "97.0 %" in page


def test_the_verdict_keeps_to_the_runs_own_protocol_and_the_test_split(tmp_path):
    fill(tmp_path)
    other = row(perturbation="clean", severity_unit="none", severity=0.0, correct=11)
    results.append_rows(tmp_path / "results.csv", [other | {"protocol": "chnode_2022"}, other | {"split": "train"}])
    page = write_page(tmp_path).read_text()
    assert re.search(r'class="number">97.0 %<', page)
    assert "<th>protocol</th>" in page and "<th>split</th>" in page


def test_the_verdict_keeps_to_the_runs_own_noise(tmp_path):
    fill(tmp_path)
    results.append_rows(tmp_path / "results.csv", [row(noise_seed=5, severity=0.2, correct=13)])
    page = write_page(tmp_path).read_text()
    assert "13.0 %" in page.split("<h2>Results")[1] and "13.0 %" not in page.split("<h2>Results")[0]
    assert "<th>noise_seed</th>" in page and "<th>weights</th>" not in page


def results_of(page):
    table = page.split("<h2>Results")[1].split("</table>")[0]
    return re.findall(r"variance ([\d.]+)", table)


def test_levels_measured_later_stand_between_the_others_without_another_column(tmp_path):
    fill(tmp_path)
    later = [row(severity=0.1, repeat=repeat, correct=70) for repeat in (0, 1)]
    clean = row(perturbation="clean", severity_unit="none", severity=0.0, correct=98, split="train", evaluation="c")
    results.append_rows(tmp_path / "results.csv", [*later, clean])
    page = write_page(tmp_path).read_text()
    assert results_of(page) == ["0.05", "0.1", "0.2"] and "<th>evaluation</th>" not in page
    assert "70.0 %" in page.split("<h2>Results")[0], "the verdict has it too"


def test_a_perturbation_set_up_in_two_ways_is_told_apart_by_the_hash(tmp_path):
    fill(tmp_path)
    results.append_rows(tmp_path / "results.csv", [row(severity=0.2, correct=13, evaluation="0badcafe")])
    page = write_page(tmp_path).read_text()
    assert "<th>evaluation</th>" in page and "0badcafe" in page and results_of(page) == ["0.05", "0.2", "0.2"]


def test_rows_of_weights_that_are_gone_are_not_shown(tmp_path):
    fill(tmp_path)
    results.append_rows(tmp_path / "results.csv", [row(weights="new", severity=0.2, correct=13, flow_discrete=0.5)])
    page = write_page(tmp_path).read_text()
    assert "13.0 %" in page and not {text for text in ("97.0 %", "81.0 %", "51.0 %", "no certificate") if text in page}


def test_results_of_two_networks_in_one_are_not_shown(tmp_path):
    fill(tmp_path)
    results.append_rows(tmp_path / "results.csv", [row(repeat=9, correct=13, flow_discrete=0.5)])
    page = write_page(tmp_path).read_text()
    assert "results.csv could not be read" in page and "81.0 %" not in page


def test_an_interrupted_run_says_so(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"status": "interrupted", "step": 77, "epoch": 3}))
    assert "<b>interrupted</b> at step 77, epoch 3" in write_page(tmp_path).read_text()


def test_a_resumed_run_is_reproduced_by_its_first_command(tmp_path):
    first = {"argv": ["robode", "train", "model=hdnn"]}
    record = {"argv": ["robode", "train", "resume=r"], "earlier": {"1": first}}
    (tmp_path / "environment.json").write_text(json.dumps(record))
    assert "<pre>robode train model=hdnn</pre>" in write_page(tmp_path).read_text()


def test_a_page_that_cannot_be_written_fails_the_job(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(JobFailed, match="cannot write .*report.html"):
        write_page(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_terminal_table_has_a_line_per_level(tmp_path):
    fill(tmp_path)
    out = Console(file=io.StringIO(), width=120)
    out.print(tables.results_table(results.summarise(results.read_rows(tmp_path / "results.csv"))))
    text = out.file.getvalue()
    assert "97.0 %" in text and "variance 0.05" in text and "[72.2, 87.5]" in text and "protocol" not in text


def test_the_terminal_table_fits_80_columns_and_breaks_no_name(tmp_path):
    fill(tmp_path)
    out, name = (
        Console(file=io.StringIO(), width=80),
        "chnode_lipschitz-fashion_mnist-N12-s1-0123456789ab-and-a-long-name-that-goes-on",
    )
    out.print(tables.results_table(results.summarise(results.read_rows(tmp_path / "results.csv")), title=name))
    first, *lines = out.file.getvalue().splitlines()
    assert first.strip() == name and max(map(len, lines)) <= 80
    assert lines[0].split() == ["perturbation", "level", "accuracy", "95", "%", "interval", "n"]
    assert "…" not in out.file.getvalue()


@pytest.mark.parametrize("scale", [12345.0, 1.2e14, 1.2e-9])
@pytest.mark.parametrize("reference", [None, 1.1])
def test_the_terminal_table_cuts_no_interval_of_errors_of_any_size(scale, reference):
    task = "regression: error in rad (lower is better)"
    found = row(
        perturbation="salt_and_pepper", severity_unit="variance", space="normalised", run="r", n=10000, task=task
    )
    found |= {"score": scale, "score_low": 0.9 * scale, "score_high": 1.1 * scale, "repeats": 10, "evaluation": "e"}
    found["score_reference"] = float("nan") if reference is None else reference * scale
    out = Console(file=io.StringIO(), width=80)
    out.print(tables.results_table(pd.DataFrame([found]), title="run"))
    text = out.file.getvalue()
    measure = measure_named(task)
    numbers = [measure.text(scale), measure.interval(0.9 * scale, 1.1 * scale), "10000 × 10"]
    for whole in (*numbers, "salt", "pepper", "variance", "0.05", "(normalised)", "95 % interval", "perturbation"):
        assert whole in text, text
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.0, "1-Lipschitz"), (1.001, "may expand"), (float("inf"), "none, no certificate")],
)
def test_the_certificates_line_keeps_the_claims_apart(value, words):
    line = tables.certificates_line(0.5, value)
    assert "flow_ode) 0.5, 1-Lipschitz" in line and line.endswith(words)
