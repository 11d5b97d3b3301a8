"""The lecture's item on gradient stability: a run with all that its figures and columns ask for."""

import numpy as np
import pandas as pd
import pytest
from small_runs import train
from test_lecture_and_poster import collected

from robode.papers.figures.energy import EnergyPaths
from robode.papers.figures.gradient_stability import GradientStability
from robode.papers.spec import load
from robode.runs.results import read_numbers
from robode.runs.table import BSM_NORMS

HNN = ("model=hdnn", "model.separable=true", "integrator=symplectic_euler", "depth=3", "step=0.5")
LOGGED = ("callbacks=gradients", "callbacks.bsm.every=2", "suite=[clean,gradient_stability,energy]", "epochs=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        found = train(*HNN, *LOGGED)
        yield type(found)(found.folder.resolve())


def test_an_hnn_keeps_every_sensitivity_at_least_one_at_every_step_of_its_training(run):
    log = BSM_NORMS.read(run.folder / "bsm.csv")
    assert len(log["step"].unique()) >= 3 and set(log["layer"]) == {1, 2, 3}
    assert log["bsm_point"].min() >= 1 - 1e-5 and log["bsm_min"].min() >= 1 - 1e-5
    assert (log["gradient"] <= log["gradient_bound"] * (1 + 1e-5)).all() and (log["gradient"] > 0).all()


def test_its_figures_show_what_was_logged(run):
    pictures = {picture.stem: picture for picture in GradientStability().draw(collected(run.folder))}
    assert list(pictures) == ["sensitivities", "samples_and_mean", "gradients_by_layer"]
    log = BSM_NORMS.read(run.folder / "bsm.csv")
    (ax,) = pictures["sensitivities"].figure.axes
    assert ax.get_yscale() == "log"
    for layer, line in enumerate(ax.lines[:3], 1):
        assert np.array_equal(line.get_ydata(), log[log["layer"] == layer]["bsm_point"])
    (ax,) = pictures["samples_and_mean"].figure.axes
    first = log[log["layer"] == 1]
    for line, name in zip(ax.lines, ("bsm_median", "bsm_min", "bsm_norm_of_mean"), strict=False):
        assert np.array_equal(line.get_ydata(), first[name])
    (ax,) = pictures["gradients_by_layer"].figure.axes
    bound, gradient = (np.asarray(line.get_ydata()) for line in ax.lines)
    assert gradient == pytest.approx(log.groupby("layer")["gradient"].median()) and (gradient <= bound).all()
    assert [picture.stem for picture in EnergyPaths().draw(collected(run.folder))] == ["energy"]


def test_rows_without_a_test_sample_are_left_out(tmp_path):
    assert GradientStability().draw(collected(tmp_path)) == []
    line = dict.fromkeys(BSM_NORMS.columns, 1.0) | {"step": 0, "layer": 1}
    for name in ("bsm_point", "gradient", "gradient_bound"):
        del line[name]
    BSM_NORMS.append(tmp_path / "bsm.csv", [line])
    assert GradientStability().draw(collected(tmp_path)) == []


@pytest.mark.parametrize("name", ["gradient_stability", "planar_classification"])
def test_every_quantity_that_the_item_shows_is_one_that_its_suites_measure(name, run):
    item = load("lecture", []).items[name]
    asked = {column.quantity for column in item.columns.values() if column.quantity}
    if name == "gradient_stability":
        assert asked <= set(read_numbers(run.folder / "numbers.csv")["quantity"])
        published = pd.DataFrame([row.published for row in item.rows])
        assert published.notna().sum().sum() == 12 and set(published) <= set(item.columns)
    else:
        assert asked == {"least_determinant", "bulge"}
    assert all(len(row.seeds) >= 3 for row in item.rows)
