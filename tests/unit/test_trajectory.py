"""Trajectories of learned flow maps: the rows say what is true of maps whose trajectories are known."""

import math

import numpy as np
import pytest
import torch
from small_runs import composed
from torch import nn

from robode.data.henon_heiles import HenonHeiles
from robode.data.module import DataModule
from robode.data.oscillator import Oscillator
from robode.data.pendulum import Pendulum
from robode.errors import BadInput
from robode.heads import Identity
from robode.network import build_network
from robode.quantities.trajectory import FILE, Trajectory
from robode.runs.results import append_numbers


class Turn(nn.Module):
    """(q, p) turned clockwise by an angle and stretched."""

    def __init__(self, angle: float, stretch: float = 1.0):
        super().__init__()
        c, s = stretch * math.cos(angle), stretch * math.sin(angle)
        self.register_buffer("A", torch.tensor([[c, s], [-s, c]], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double() @ self.A.to(torch.float64).T


def measured(network, source, folder, **keys) -> dict[str, float]:
    data = DataModule(source, 10, 0)
    data.prepare()
    network.register_buffer("anywhere", torch.zeros(1))
    return {line["quantity"]: line["value"] for line in Trajectory(**keys).measure(network, data, folder)}


def test_the_exact_map_keeps_everything(tmp_path):
    found = measured(Turn(0.1), Oscillator(train=4, test=9), tmp_path)
    assert set(found) == {
        "one_step_rmse", "trajectory_rmse", "phase_error", "energy_drift", "energy_lowest", "energy_highest",
    }  # fmt: skip
    assert found["one_step_rmse"] < 1e-7 and max(abs(value) for value in found.values()) < 1e-7
    with np.load(tmp_path / FILE) as arrays:
        assert arrays["network"].shape == arrays["exact"].shape == (1001, 2) and arrays["time"][-1] == 100
        assert np.allclose(arrays["exact"][-1], [math.cos(100), -math.sin(100)], atol=1e-10)
        assert np.allclose(arrays["energy"], 0.5) and arrays["phase"].shape == (1001,)


def test_a_map_that_turns_too_fast_keeps_its_energy_and_is_late_by_a_phase_that_grows_with_time(tmp_path):
    found = measured(Turn(0.1005), Oscillator(train=4, test=9), tmp_path)
    assert found["phase_error"] == pytest.approx(0.0005 * 1000) and abs(found["energy_drift"]) < 1e-10
    with np.load(tmp_path / FILE) as arrays:
        assert np.allclose(arrays["phase"], 0.0005 * np.arange(1001), atol=1e-9)
    assert found["one_step_rmse"] == pytest.approx(
        0.0005 * np.sqrt(np.mean(Oscillator(train=4, test=9).load()[1].x.numpy() ** 2)), rel=1e-3
    )


def test_a_map_that_contracts_loses_energy(tmp_path):
    found = measured(Turn(0.1, stretch=0.9995), Oscillator(train=4, test=9), tmp_path, time=50)
    assert found["energy_drift"] == found["energy_lowest"] == pytest.approx(0.9995**1000 - 1)
    assert found["energy_highest"] == 0 and abs(found["phase_error"]) < 1e-9


def test_a_map_that_leaves_all_bounds_has_infinite_numbers(tmp_path):
    found = measured(Turn(0.1, stretch=10.0), Oscillator(train=4, test=9), tmp_path)
    assert found["energy_drift"] == found["trajectory_rmse"] == math.inf and not any(map(math.isnan, found.values()))


def test_a_network_whose_samples_say_their_time_is_given_dt(tmp_path):
    class Timed(nn.Module):
        def forward(self, x):
            assert x.shape[1] == 3
            c, s = torch.cos(x[:, 2:]), torch.sin(x[:, 2:])
            return torch.cat([c * x[:, :1] + s * x[:, 1:2], c * x[:, 1:2] - s * x[:, :1]], dim=1)

    found = measured(Timed(), Oscillator(dt=1.0, train=4, test=3, times=5), tmp_path)
    assert max(abs(value) for value in found.values()) < 1e-6


def test_four_dimensions_have_no_phase(tmp_path):
    found = measured(nn.Identity(), HenonHeiles(train=4, test=9), tmp_path, time=1, start=[0.1, 0.0, 0.0, 0.0])
    assert "phase_error" not in found and found["energy_drift"] == 0 and found["trajectory_rmse"] > 0
    expected = HenonHeiles(train=4, test=9).load()[1]
    assert found["one_step_rmse"] == pytest.approx(
        float((expected.x - expected.target).square().mean().sqrt()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"time": 0.25}, "expects a time that is a multiple of dt = 0.1, got 0.25"),
        ({"time": 0.001}, "expects a time that is a multiple of dt = 0.1"),
        ({"start": [1.0]}, "expects a start of 2 numbers, got 1"),
        ({"invariants": ["mass"]}, "knows no invariant mass of these data; they have energy"),
    ],
)
def test_what_it_cannot_measure_is_refused(keys, expected):
    assert expected in str(Trajectory(**keys).refusal(Oscillator().info))


def test_other_tasks_are_refused_before_anything_is_trained():
    other = composed("data=double_moons", "suite=clean").data.source.build().info
    assert "needs data that are flow maps" in str(Trajectory().refusal(other))
    with pytest.raises(BadInput, match=r"suite.trajectory.time: expected a number > 0, got -1"):
        Trajectory(time=-1)
    assert Trajectory(time=2.0).refusal(Pendulum().info) is None


def test_the_suite_builds_and_its_rows_are_found_again(tmp_path):
    config = composed("data=oscillator", "model=sympnet", "depth=2", "suite=trajectory", "suite.trajectory.time=5")
    data = DataModule(config.data.source.build(), 10, 0)
    data.prepare()
    quantity = config.suite["trajectory"].build()
    network = build_network(config, data.info)
    assert isinstance(network.head, Identity)
    rows = quantity.measure(network, data, tmp_path)
    assert {line["quantity"] for line in rows} == quantity.in_numbers()
    about = {"run": "r", "checkpoint": "last", "weights": "w", "seed": 0, "commit": "", "code": ""}
    append_numbers(tmp_path / "numbers.csv", [about | line for line in rows])
    assert quantity.known(tmp_path, "w") and not quantity.known(tmp_path, "other")
    assert Trajectory(time=5.0, start=[1.0, 0.0]).known(tmp_path, "w")
    assert not Trajectory(time=6.0).known(tmp_path, "w"), "another time is another trajectory"
    assert not Trajectory(time=5.0, start=[0.5, 0.0]).known(tmp_path, "w")
    assert not Trajectory(time=5.0, invariants=["mass"]).known(tmp_path, "w")
