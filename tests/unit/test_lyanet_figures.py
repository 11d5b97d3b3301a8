"""LyaNet's figures: the numbers and arrays that they are drawn from, against closed forms; what the pictures show."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from robode.config.instantiate import build
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.data.toy import Circles, SixPoints
from robode.encoders import MLPControl, States
from robode.errors import BadInput
from robode.families.data_node import DataNode
from robode.heads import Identity
from robode.integrators.runge_kutta import RK4
from robode.network import Network
from robode.papers.figures.circles import Softmax
from robode.papers.figures.state_plane import Dynamics, LevelSets
from robode.papers.figures.stopped_early import StoppedEarly
from robode.papers.spec import load
from robode.quantities.lyapunov_plane import LyapunovPlane
from robode.quantities.plane import Field2D
from robode.quantities.softmax_plane import SoftmaxPlane
from robode.report.values import NUMBERS, ROWS, RUNS, VALUES, Collected
from robode.runs.table import METRICS
from robode.tasks.classification import Classification

FIGURES = (Dynamics(), LevelSets(), Softmax(), StoppedEarly())
KAPPA, BOX = 1.5, 3.0


class TwoPoints(Source):
    """One sample a class."""

    @property
    def info(self):
        return DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("red", "blue")))

    def load(self):
        two = Samples(torch.eye(2), torch.arange(2))
        return two, two


def towards(way: tuple[float, float], gain: float = 1.0) -> Network:
    """A data node whose field has this direction everywhere."""
    flow = DataNode(2, 5, RK4(), hidden=4, box=BOX, kappa=1.0, gain=gain, dropout=0.0)
    with torch.no_grad():
        flow.W2.zero_()
        flow.b2.copy_(torch.tensor(way)[:, None])
    return Network(TwoPoints().info, flow, MLPControl((2,), States(2, True, 16), hidden=[]), Identity(2, 2))


def numbers(quantity, network, source, folder) -> dict[str, float]:
    rows = quantity.measure(network, DataModule(source, 1, 0), folder)
    return {str(each["quantity"]): float(each["value"]) for each in rows}


def collected(runs) -> Collected:
    """runs: row, label, seed, folder."""
    lines = [{"row": row, "label": label, "group": "g", "seed": seed, "folder": str(folder), "status": "done"}
             for row, label, seed, folder in runs]  # fmt: skip
    frames = [pd.DataFrame(columns=list(names)) for names in (VALUES, ROWS, NUMBERS)]
    return Collected(runs=pd.DataFrame(lines, columns=list(RUNS)), values=frames[0], rows=frames[1], numbers=frames[2])


def test_the_share_of_violated_states_is_that_of_the_closed_form(tmp_path):
    found = numbers(LyapunovPlane(scale=2.0, kappa=KAPPA), towards((1.0, -1.0), 0.9), TwoPoints(), tmp_path)
    a, b = np.meshgrid(np.linspace(-2, 2, 201), np.linspace(-2, 2, 201))
    V, wrong = np.log1p(np.exp(b - a)), 1 / (1 + np.exp(a - b))
    p = 1 / (1 + math.exp(-2 * BOX * math.sqrt(2)))  # softmax(2 s u)
    speed = 0.9 / 2 * (p * np.hypot(a - BOX, b + BOX) + (1 - p) * np.hypot(a + BOX, b - BOX))
    assert 0.05 < (share := float((KAPPA * V > math.sqrt(2) * speed * wrong).mean())) < 0.95
    assert found["violated_on_grid"] == pytest.approx((share + 1) / 2, abs=2e-5), "of class 1 everything is violated"
    assert found["lyapunov_kappa"] == KAPPA and 0.4 < found["paths_right"] <= 0.55


def test_paths_on_which_the_solver_breaks_down_violate_the_condition(tmp_path):
    found = numbers(LyapunovPlane(scale=2.0, kappa=KAPPA), towards((1.0, -1.0), 1e200), TwoPoints(), tmp_path)
    assert found["violated_on_grid"] == pytest.approx(0.5, abs=1e-3)
    assert found["violated_on_paths"] == pytest.approx((5 / 6 + 1) / 2), "all but the initial states of class 0"


def test_the_arrays_are_those_of_the_first_sample(tmp_path):
    numbers(LyapunovPlane(scale=2.0, kappa=KAPPA), towards((-1.0, 1.0)), TwoPoints(), tmp_path)
    arrays = np.load(tmp_path / "lyapunov_plane.npz")
    assert arrays["label"] == 0 and (arrays["rate"] > 0).all()
    assert np.allclose(
        arrays["field"] / np.linalg.norm(arrays["field"], axis=2, keepdims=True), [-(0.5**0.5), 0.5**0.5]
    )
    assert arrays["states"].shape == (6, 100, 2) and (np.diff(arrays["path_value"]) > 0).all()


def test_networks_without_a_plane_of_states_have_no_such_number(tmp_path):
    quantity = LyapunovPlane()
    wide = Network(
        TwoPoints().info, DataNode(3, 2, RK4(), hidden=4), MLPControl((2,), States(3, True, 16)), nn.Linear(3, 2)
    )
    assert quantity.suits(towards((1.0, 0.0))) and not quantity.suits(wide)
    assert not Field2D().suits(towards((1.0, 0.0))), "it looks at states without their sample"
    with pytest.raises(BadInput, match=r"suite\.lyapunov_plane\.scale"):
        LyapunovPlane(scale=0)


def test_the_softmax_of_the_plane_is_that_of_the_logits(tmp_path):
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        linear.bias.copy_(torch.tensor([0.0, -1.0]))
    found = numbers(SoftmaxPlane(near=2.0, far=4.0), linear, Circles(), tmp_path)
    assert found["share_near"] == pytest.approx(0.25, abs=0.01) and found["share_far"] == pytest.approx(0.375, abs=0.01)
    arrays = np.load(tmp_path / "softmax_plane.npz")
    assert np.allclose(arrays["p_near"], 1 / (1 + np.exp(1 - arrays["x_near"])), atol=1e-6), (
        "columns are the first input"
    )
    assert SoftmaxPlane().misfit(SixPoints().info) is None


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: type(figure).__name__)
def test_runs_that_are_not_there_or_have_no_files_cost_their_figure_only(figure, tmp_path):
    assert figure.draw(collected([])) == [] and figure.draw(collected([(0, "A", 1, tmp_path)])) == []


def test_every_figure_of_the_paper_can_be_built():
    items = load("lyanet_2022", []).items.values()
    drawn = {type(build(dict(node))) for item in items for node in item.figures}
    assert drawn >= {type(each) for each in FIGURES}


def test_the_panels_of_figs_1_and_2_say_how_much_is_violated_and_show_every_solution(tmp_path):
    numbers(LyapunovPlane(scale=2.0, paths=7), towards((-1.0, 1.0)), TwoPoints(), tmp_path)
    (first,) = Dynamics().draw(collected([(0, "Neural ODE", 1, tmp_path), (1, "other seed", 2, tmp_path)]))
    (panel,) = first.figure.axes
    assert panel.get_title("left") == "Neural ODE: 100.0 % violated"
    assert sum(line.get_marker() == "." for line in panel.lines) == 7
    (second,) = LevelSets().draw(collected([(0, "Neural ODE", 1, tmp_path)]))
    V, comparison = second.figure.axes[2].lines[-2:]
    kappa = math.log(2 * math.sqrt(2))
    t, gamma = comparison.get_data()
    assert np.allclose(gamma, V.get_ydata()[0] * np.exp(-kappa * t)) and t[-1] == 1


def test_a_panel_for_the_data_and_one_for_each_network_near_and_far(tmp_path):
    numbers(SoftmaxPlane(), nn.Linear(2, 2), Circles(), tmp_path)
    (found,) = Softmax().draw(collected([(0, "MLP", 1, tmp_path), (1, "LyaNet", 1, tmp_path)]))
    titles = [ax.get_title("left") for ax in found.figure.axes]
    assert titles[:6] == ["training data", "MLP", "LyaNet", "", "", ""]
    assert [ax.get_xlim()[1] for ax in found.figure.axes[:6]] == [3.0] * 3 + [10.0] * 3


def test_losses_are_of_images_that_are_right_for_the_network_or_for_all_and_time_is_scaled_by_the_gain(tmp_path):
    loss = np.array([[1.0, 2.0, 3.0], [1.0, 4.0, 9.0]])
    for name, right, gain in (("a", [1, 1, 0], 4.0), ("b", [0, 1, 1], 8.0)):
        (tmp_path / name).mkdir()
        last = np.array([[0, 0, 0], right], dtype=bool)
        np.savez(tmp_path / name / "early_stopping.npz", time=[0.0, 1.0], calls=[0, 4], loss=loss, right=last)
        METRICS.append(
            tmp_path / name / "metrics.csv",
            [{"epoch": e, "step": e, "name": "flow/gain", "value": value} for e, value in enumerate((99.0, gain))],
        )
    (found,) = StoppedEarly().draw(collected([(0, "A", 1, tmp_path / "a"), (1, "A, b", 1, tmp_path / "b")]))
    own, common, scaled = found.figure.axes
    assert [line.get_ydata().tolist() for line in own.lines] == [[1.5, 2.5], [2.5, 6.5]]
    assert [line.get_ydata().tolist() for line in common.lines] == [[2.0, 4.0]] * 2
    assert [line.get_xdata().tolist() for line in scaled.lines] == [[4.0], [8.0]]
    assert (
        own.lines[0].get_color() == own.lines[1].get_color()
        and own.lines[0].get_linestyle() != own.lines[1].get_linestyle()
    )
    assert "every network of a seed gets right: g: 1." in found.caption
