"""What a row says about the network and the noise, and what a run's status says about measuring and drawing."""

from contextlib import nullcontext

import pytest
import torch
from small_runs import SMALL, composed, train

from robode.api.evaluation import run_evaluation
from robode.errors import JobFailed
from robode.network import weights_digest
from robode.runs.results import read_rows
from robode.runs.run import find
from robode.training.assembly import assemble


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs go into tmp_path; figures have tests of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


@pytest.mark.slow
def test_evaluation_with_another_seed_draws_other_noise_for_the_same_network():
    run = train("epochs=1", "suite=[noise,clean]", "seed=3")
    run_evaluation(composed(f"run={run.folder}", "seed=5", "suite=[noise,clean]", "repeats=1", verb="evaluate"))
    rows = read_rows(run.folder / "results.csv")
    assert set(rows["seed"]) == {3} and set(rows["weights"].str.len()) == {12} and rows["weights"].nunique() == 1
    own, other = (rows[rows["noise_seed"] == seed] for seed in (3, 5))
    assert len(own) == len(other) == len(rows) / 2
    clean = rows[rows["perturbation"] == "clean"]["score"]
    assert clean.nunique() == 1


def test_weights_are_told_apart_by_their_values():
    parts = assemble(composed(*SMALL))
    before = weights_digest(parts.network)
    assert weights_digest(assemble(composed(*SMALL)).network) == before
    with torch.no_grad():
        parts.network.head.bias[0] += 1e-6
    assert weights_digest(parts.network) != before


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_another_precision_than_the_measurements_is_a_warning(precision, capsys):
    run = train("epochs=1", f"trainer.precision={precision}")
    line = f"trained in {precision}, measured in float32"
    assert run.status()["warnings"] == [line] and line in (run.folder / "report.html").read_text()
    assert capsys.readouterr().out.count(line) == 1
    run_evaluation(composed(f"run={run.folder}", verb="evaluate"))
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (JobFailed("disk"), "failed"), (None, "done")]
)
def test_status_tells_what_happened_while_drawing(error, status, monkeypatch):
    def draw(folder):
        if error:
            raise error
        return []

    monkeypatch.setattr("robode.api.evaluation.draw_figures", draw)
    with pytest.raises(type(error)) if error else nullcontext():
        train("epochs=1", "run=drawn")
    run, _ = find("drawn")
    assert run.status()["status"] == status
    if not error:
        assert "status <b>done</b>" in (run.folder / "report.html").read_text()
