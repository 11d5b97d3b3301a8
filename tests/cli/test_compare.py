"""`robode compare`: what tells runs apart, and tests on the same samples or none at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer
from small_tables import result_row, run_folder

from robode.report.compare import spark
from robode.runs import results
from robode.runs.run import Run
from robode.runs.scores import write_scores
from robode.runs.table import METRICS

CLEAN = {"perturbation": "clean", "severity": 0.0, "severity_unit": "none", "evaluation": "c"}
Robode = Callable[..., Answer]


def measured(seed: int, right: int, shift: int = 0, data: str = "d1", **changes: object) -> Run:
    """A run that is right on `right` of 100 samples from number `shift` on, clean and in two noisy copies."""
    run = Run(run_folder(Path("outputs/sweep"), seed, 90, **changes))
    (run.folder / "results.csv").unlink()
    (run.folder / "environment.json").write_text(json.dumps({"data_digest": data, "code_digest": "0" * 12}))
    correct = (np.arange(100) >= shift) & (np.arange(100) < shift + right)
    rows = [result_row(right, noise_seed=seed, **CLEAN)]
    rows += [result_row(right, noise_seed=seed if seed > 5 else 0, repeat=repeat) for repeat in (0, 1)]
    for row in rows:
        write_scores(run.folder, row, correct)
    results.append_rows(run.folder / "results.csv", rows)
    log = [{"epoch": i, "step": i, "name": "train/loss", "value": 1.0 / (i + seed)} for i in range(3)]
    METRICS.append(run.folder / "metrics.csv", log)
    return run


def test_a_table_for_each_level_with_the_test_on_the_same_samples(robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75, lr=0.2)
    answer = robode("compare", a.id, str(b.folder))
    assert (answer.code, answer.err) == (0, "")
    out = answer.out
    assert re.search(r"^seed +1 +2$", out, re.M) and re.search(r"^lr +0\.1 +0\.2$", out, re.M)
    assert "model.width" not in out and "digest" not in out
    assert "clean (test, data_space)" in out and "gaussian, variance 0.05 (test, data_space)" in out
    # 15 of 100 samples are decided, all for B: p = 2 · 2^-15, and ± 1.984 · 0.3589 / 10 around 0.15
    assert out.count("B − A: +15.0 points [+7.9, +22.1], p < 0.0001: B is better") == 2
    assert "75.0 % [65.7, 82.5], n = 100, 2 copies" in out and "Each p is of one test by itself" in out
    assert "A  █▃▁  1 → 0.3333" in out


def test_networks_that_are_right_as_often_are_not_told_apart(robode: Robode) -> None:
    runs = [measured(seed, 60, shift=10 * seed) for seed in (1, 2, 3)]
    out = robode("compare", *(run.id for run in runs)).out
    assert out.count("p = 1: no difference is shown") == 6 and "C − B: +0.0 points" in out


def test_other_noise_and_other_data_are_not_compared(robode: Robode) -> None:
    a, b, c = measured(1, 60), measured(6, 75), measured(2, 75, data="d2")
    out = robode("compare", a.id, b.id).out
    clean, noisy = out.split("gaussian, variance")
    assert "B is better" in clean and "B − A" not in noisy and "other noise in each" in noisy
    out = robode("compare", a.id, c.id).out
    assert "B − A" not in out and "Not tested: A and B saw other data" in out
    assert re.search(r"^data digest +d1 +d2$", out, re.M)
    (c.folder / "results.csv").unlink()  # measuring again would not make them comparable
    assert "No perturbation" not in robode("compare", a.id, c.id).out


def test_nothing_in_common_and_a_damaged_file_are_said(robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    next((b.folder / "scores").glob("*c-*.npy")).write_bytes(b"no scores")
    out = robode("compare", a.id, b.id).out
    assert "no scores of samples; is it damaged?; robode evaluate writes it again" in out and "pickle" not in out
    clean, noisy = out.split("gaussian, variance")
    assert "not tested, the scores of the samples of B cannot be read" in clean and "other noise" not in out
    assert "B − A: +15.0 points" in noisy
    (b.folder / "results.csv").unlink()
    assert "No perturbation and level was measured" in robode("compare", a.id, b.id).out


def test_a_folder_gets_the_text_and_the_picture(robode: Robode, folder: Path) -> None:
    a, b = measured(1, 60), measured(2, 75)
    out = robode("compare", a.id, b.id, "to=side").out
    assert (folder / "side" / "comparison.txt").read_text() in out
    assert (folder / "side" / "figures" / "curves.png").stat().st_size > 1000
    assert (folder / "side" / "figures" / "curves.pdf").is_file()


def test_the_page_says_the_same_with_curves_in_one_picture_and_links_to_the_runs(robode: Robode, folder: Path) -> None:
    a, b = measured(1, 60), measured(2, 75, lr=0.2)
    (a.folder / "report.html").write_text("the run's own")
    out = robode("compare", a.id, b.id).out
    (line,) = (line for line in out.splitlines() if line.startswith("report:  outputs/reports/compare-"))
    path = folder / line.removeprefix("report:  ")
    page = path.read_text()
    (link,) = re.findall(r'href="([^"]+)"', page)  # b has no page
    assert (path.parent / link).read_text() == "the run's own" and not link.startswith("/")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "lr 0.1 0.2" in text and "model.width" not in text
    assert "B − A +15.0 points [+7.9, +22.1] &lt; 0.0001 B is better 100 2" in text
    assert "60.0 % [50.2, 69.1], n = 100 75.0 % [65.7, 82.5], n = 100" in text
    (curves,) = re.findall(r'<img [^>]*src="data:image/png[^>]* alt="([^"]*)"', page)
    assert curves == "train/loss: epoch: A from 1 at 0 to 0.333 at 3, B from 0.5 at 0 to 0.25 at 3"
    assert str(folder) not in page and "Each p is of one test" in text
    assert robode("compare", a.id, b.id).out == out  # the same runs have the same page
    assert line not in robode("compare", b.id, a.id).out


def test_the_page_of_runs_without_logs_and_rows_says_so(robode: Robode, folder: Path) -> None:
    runs = [measured(seed, 60) for seed in (1, 2)]
    for run in runs:
        (run.folder / "metrics.csv").unlink()
        (run.folder / "results.csv").unlink()
    assert robode("compare", *(run.id for run in runs), "to=side").code == 0
    page = (folder / "side" / "report.html").read_text()
    assert "No perturbation and level was measured" in page and "<img" not in page and "Paired tests" not in page
    assert not (folder / "side" / "figures").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "two runs or more"),
        (("A",), "two runs or more"),
        (("A",) * 27, "at most 26 runs, got 27"),
        (("nothing", "A"), "nothing"),
        (("A", "A"), "named twice"),
        (("A", "A", "--config-dir", "."), "takes no --config-dir"),
    ],
)
def test_refused_in_a_line(words: tuple[str, ...], expected: str, robode: Robode) -> None:
    run = measured(1, 60)
    answer = robode("compare", *(run.id if word == "A" else word for word in words))
    assert answer.code == 2 and expected in answer.line


def test_files_of_scores_that_are_gone_are_not_called_other_noise(robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    for path in (b.folder / "scores").iterdir():
        path.unlink()
    out = robode("compare", a.id, b.id).out
    assert "other noise" not in out and "samples of A" not in out and "(and 2 more files of scores of B)" in out
    command = f"robode evaluate run={b.folder} suite=noise protocol=data_space seed=0 repeats=2 writes them again"
    assert f"not tested, the scores of the samples of B cannot be read: {command}" in out


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_the_folder_of_a_run_keeps_its_own_page(verb: str, robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    (a.folder / "report.html").write_text("the run's own")
    answer = robode(verb, a.id, b.id, f"to={a.folder}")
    assert answer.code == 2 and "this is a run's" in answer.line
    assert (a.folder / "report.html").read_text() == "the run's own" and not (a.folder / "comparison.txt").exists()


def test_a_page_anywhere_has_links_to_the_runs(robode: Robode, tmp_path_factory: pytest.TempPathFactory) -> None:
    a, b = measured(1, 60), measured(2, 75)
    (a.folder / "report.html").write_text("the run's own")
    there = tmp_path_factory.mktemp("elsewhere") / "deep"
    assert robode("compare", a.id, b.id, f"to={there}").code == 0
    (link,) = re.findall(r'href="([^"]+)"', (there / "report.html").read_text())
    assert (there / link).read_text() == "the run's own" and not link.startswith("/")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"model: 1\n", b"model: [\n", b"a: 1\nmodel\n"])
@pytest.mark.parametrize("verb", ["compare A B", "report B", "evaluate run=B", "train resume=B"])
def test_a_damaged_configuration_is_named(content: bytes, verb: str, robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    (b.folder / "config.yaml").write_bytes(content)
    answer = robode(*(word.replace("A", a.id).replace("B", b.id) for word in verb.split()))
    assert answer.code == 2 and f"outputs/sweep/{b.id}/config.yaml: " in answer.line


def test_damaged_tables_are_said(robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    for content in (b"\xff\xfe\x00", b"\xff\xfe\n\x00\n", b"other,columns\n", b"other,columns\n1,2\n"):
        (b.folder / "metrics.csv").write_bytes(content)
        answer = robode("compare", a.id, b.id)
        assert answer.code == 0 and f"{b.folder}/metrics.csv" in answer.out and "  A  █▃▁" in answer.out, content
    (b.folder / "metrics.csv").write_bytes(b"epoch,st")  # a head that a kill has torn
    assert "metrics.csv" not in robode("compare", a.id, b.id).out
    for content in (b"\xff\xfe\x00", b"other,columns\n"):
        (b.folder / "results.csv").write_bytes(content)
        assert f"{b.folder}/results.csv" in robode("compare", a.id, b.id).line


def test_a_run_has_one_page_however_it_is_written(robode: Robode, folder: Path) -> None:
    a, b = measured(1, 60), measured(2, 75)
    Path("link").symlink_to(a.folder)
    for verb in ("compare", "report"):
        names = (a.id, str(a.folder), str(a.folder.absolute()), "link")
        said = {robode(verb, name, b.id).out.splitlines()[-1] for name in names}
        assert len(said) == 1 and f"reports/{verb.replace('report', 'runs')}-" in said.pop()


def test_the_text_says_how_far_each_run_is(robode: Robode) -> None:
    a, b = measured(1, 60), measured(2, 75)
    b.last.write_bytes(b"weights")
    b.update(status="interrupted", trained=False)
    lines = robode("compare", a.id, b.id).out.splitlines()
    assert lines[0] == f"A  {a.folder}  done †" and lines[1] == f"B  {b.folder}  interrupted †"
    assert "† trained by other code than this" in lines
    assert f"B is interrupted: robode train resume={b.folder} goes on with it" in lines
    (b.folder / "status.json").write_text("{")
    out = robode("compare", a.id, b.id).out
    assert "  damaged" in out.splitlines()[1] and "status.json: is damaged" in out


def test_a_curve_in_a_line() -> None:
    assert spark(np.array([0.0, 0.5, 1.0]), 0.0, 1.0) == "▁▅█" and spark(np.ones(2), 1.0, 1.0) == "▁▁"
    assert len(spark(np.arange(1000.0), 0.0, 999.0)) == 40
