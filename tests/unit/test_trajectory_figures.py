"""Items that iterate learned flow maps: networks of equal size, and figures that show what the trajectories are."""

import math

import numpy as np
import pandas as pd
import pytest
from small_runs import composed

from robode.network import build_network
from robode.papers.figures.drift_against_error import DriftAgainstError
from robode.papers.figures.energy_over_time import EnergyOverTime
from robode.papers.figures.phase_over_time import PhaseOverTime
from robode.papers.figures.trajectories import Trajectories
from robode.papers.spec import find_item
from robode.quantities.trajectory import FILE
from robode.report.style import INK
from robode.report.values import Collected

K = 400


def turned(speed: float, stretch: float) -> dict[str, np.ndarray]:
    """The arrays of a map of the plane that turns by speed * 0.1 and stretches, a step."""
    time = 0.1 * np.arange(K + 1)
    length = stretch ** np.arange(K + 1)
    states = length[:, None] * np.stack([np.cos(speed * time), -np.sin(speed * time)], axis=1)
    exact = np.stack([np.cos(time), -np.sin(time)], axis=1)
    energy = np.square(states).sum(1) / 2
    return {"time": time, "network": states, "exact": exact, "energy": energy, "phase": (speed - 1) * time}


def collected(folder, four=False) -> Collected:
    """Two groups of two rows, two seeds each; the last row was measured by nobody."""
    runs, numbers = [], []
    for row, (group, label) in enumerate((g, one) for g in ("long", "short") for one in ("SympNet", "ResNet")):
        for seed in (1, 2):
            place = folder / f"{row}-{seed}"
            place.mkdir(exist_ok=True)
            runs.append(
                {"folder": str(place), "seed": seed, "row": row, "group": group, "label": label, "status": "done"}
            )
            if row == 3:
                continue
            arrays = turned(1.001 + 0.001 * seed, 1.0 if label == "SympNet" else 0.999)
            if four:
                arrays["network"] = arrays["exact"] = np.concatenate([arrays["exact"]] * 2, axis=1)
                del arrays["phase"]
            np.savez(place / FILE, **arrays)
            change = arrays["energy"] / 0.5 - 1
            found = {
                "one_step_rmse": 1e-3 * seed,
                "energy_lowest": change.min(),
                "energy_highest": math.inf * (row == 1),
            }
            if not four:
                found["phase_error"] = arrays["phase"][-1]
            about = {"row": row, "group": group, "label": label, "seed": seed}
            numbers += [about | {"quantity": name, "value": value} for name, value in found.items() if value == value]
    return Collected(pd.DataFrame(), pd.DataFrame(runs), pd.DataFrame(), pd.DataFrame(numbers))


def test_a_panel_shows_the_states_of_each_row_over_the_exact_solution(tmp_path):
    ((stem, figure, _, caption),) = Trajectories().draw(collected(tmp_path))
    assert stem == "trajectories" and len(figure.axes) == 3 and f"{K} applications" in caption
    ax = figure.axes[1]
    assert ax.get_title(loc="left") == "long\nResNet" and ax.get_xlabel() == "q"
    points = ax.collections[0].get_offsets()
    assert len(points) == K + 1 and np.hypot(*points[-1]) == pytest.approx(0.999**K)
    assert Trajectories(seed=3).draw(collected(tmp_path)) == []


def test_states_of_four_numbers_are_drawn_by_their_positions_and_have_no_phase(tmp_path):
    of_four = collected(tmp_path, four=True)
    ((_, figure, _, _),) = Trajectories().draw(of_four)
    assert figure.axes[0].get_xlabel() == "q₁" and PhaseOverTime().draw(of_four) == []
    ((_, drift, _, _),) = DriftAgainstError().draw(of_four)
    assert len(drift.axes) == 1


def test_energies_are_drawn_for_each_seed_beside_the_published_ones(tmp_path):
    drawn = EnergyOverTime(published={"ResNet": {20.0: 0.4}}, bands={"SympNet": [0.49, 0.51]})
    ((_, figure, _, caption),) = drawn.draw(collected(tmp_path))
    long, short, below, _ = figure.axes
    assert below.get_ylim() == pytest.approx((0.475, 0.525)) and long.get_ylim() == pytest.approx((0, 1))
    curves = [line for line in long.lines if len(line.get_xdata()) == K + 1]
    assert len(curves) == 4 and len([line for line in short.lines if len(line.get_xdata()) == K + 1]) == 2
    assert sorted(round(float(line.get_ydata()[-1]), 3) for line in curves) == [0.225, 0.225, 0.5, 0.5]
    (exact,) = (line for line in long.lines if line.get_color() == INK)
    assert list(exact.get_ydata()) == [0.5, 0.5]
    (points,) = (line for line in long.lines if line.get_label() == "ResNet, published")
    assert list(points.get_xdata()) == [20.0] and list(points.get_ydata()) == [0.4]
    assert "2 seeds" in caption and "as published" in caption
    assert EnergyOverTime("mass").draw(collected(tmp_path)) == []


def test_the_phase_error_of_a_turn_that_is_too_fast_lies_on_the_line_of_slope_one(tmp_path):
    ((_, figure, _, _),) = PhaseOverTime().draw(collected(tmp_path))
    ax = figure.axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    (line,) = (line for line in ax.lines if line.get_label() == "∝ t")
    for curve in (each for each in ax.lines if each is not line):
        slope = np.polyfit(np.log(curve.get_xdata()), np.log(curve.get_ydata()), 1)[0]
        assert slope == pytest.approx(1, abs=1e-6)
    assert float(line.get_ydata()[-1]) == pytest.approx(0.0025 * 0.1 * K, rel=1e-6), "the median of the seeds"


def test_each_run_is_a_point_and_what_strays_without_bound_is_drawn_at_the_edge(tmp_path):
    ((_, figure, _, _),) = DriftAgainstError().draw(collected(tmp_path))
    strayed, phase = figure.axes
    assert strayed.get_xlim() == pytest.approx((1e-4, 1e-2))
    assert [line.get_label() for line in strayed.lines] == ["long SympNet", "long ResNet", "short SympNet"]
    assert all(list(line.get_xdata()) == [1e-3, 2e-3] for line in strayed.lines)
    assert max(strayed.lines[1].get_ydata()) == 10 and max(strayed.lines[0].get_ydata()) < 1e-5
    assert float(phase.lines[0].get_ydata()[0]) == pytest.approx(0.002 * 0.1 * K)
    nothing = Collected(*(pd.DataFrame() for _ in range(4)))
    assert DriftAgainstError().draw(nothing) == []


def parameters(item: str) -> list[int]:
    """How many each row's network has."""
    configs = (composed(f"experiment=lecture/{item}", *row.overrides) for row in find_item(f"lecture/{item}").rows)
    networks = (build_network(config, config.data.source.build().info) for config in configs)
    return [sum(each.numel() for each in network.parameters()) for network in networks]


@pytest.mark.parametrize("item", ["oscillator", "pendulum"])
def test_the_networks_of_an_item_have_as_many_parameters(item):
    assert set(parameters(item)) == {240}


def test_sympflows_and_residual_networks_have_as_many_parameters_as_the_page_says():
    said = find_item("lecture/henon_heiles").note
    assert parameters("henon_heiles") == [400, 393, 500, 519]
    assert "400 and 500 parameters" in said and "393 and 519 parameters" in said
