"""Flow maps of systems: states drawn once for all, moved as the exact flow moves them, which keeps the invariants."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from robode.data.advection import Advection
from robode.data.dynamics import Dynamics
from robode.data.henon_heiles import HenonHeiles
from robode.data.module import DataModule
from robode.data.oscillator import Oscillator
from robode.data.pendulum import Pendulum
from robode.data.sir import SIR
from robode.data.spherical_pendulum import SphericalPendulum
from robode.errors import BadInput
from robode.tasks.flow_map import FlowMap

SYSTEMS = {
    "pendulum": Pendulum, "oscillator": Oscillator, "henon_heiles": HenonHeiles, "sir": SIR, "advection": Advection,
    "spherical_pendulum": SphericalPendulum,
}  # fmt: skip
KEPT = {
    **dict.fromkeys(SYSTEMS, ("energy",)), "sir": ("mass",), "advection": ("norm",),
    "spherical_pendulum": ("energy", "momentum", "length", "tangency"),
}  # fmt: skip
CONSTRAINTS = {"mass", "length", "tangency"}
"""What is the same for all states that are drawn."""


def exact(system: Dynamics, states: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(n, d) states after a time each, by another method at the end of what float64 can do."""

    def slope(t, y):
        return system.derivative(y[None])[0]

    ends = [
        solve_ivp(slope, (0, t), y, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        for y, t in zip(states, times, strict=True)
    ]
    return np.array(ends)


@pytest.mark.parametrize("name", SYSTEMS)
def test_targets_are_where_the_states_are_after_dt(name):
    system = SYSTEMS[name](0.7, train=12, test=5)
    train, test = system.load()
    assert (len(train.x), len(test.x)) == (12, 5) and train.x.dtype == train.target.dtype == torch.float32
    ends = exact(system, train.x.double().numpy(), np.full(12, 0.7))
    assert np.abs(train.target.numpy() - ends).max() < 1e-6
    task = system.info.task
    assert isinstance(task, FlowMap) and task.dt == 0.7 and task.outputs == system.size
    assert str(task.measure).startswith("flow_map: error in ")
    other = SYSTEMS[name](1.0, train=12, test=5)
    assert torch.equal(train.x, other.load()[0].x), "another time, the same states"


@pytest.mark.parametrize("name", SYSTEMS)
def test_solutions_keep_the_invariants_and_states_do_not_share_them(name):
    system = SYSTEMS[name]()
    states = system.draw(np.random.default_rng(3), 50)
    after = system.flow(states, 4.3)
    assert system.info.task.invariants == KEPT[name]
    assert np.abs(after - states).max() > 0.1
    for kept, value in system.invariants.items():
        assert value(states).shape == (50,)
        assert np.abs(value(after) - value(states)).max() < 1e-8
        assert value(states).std() < 1e-12 if kept in CONSTRAINTS else value(states).std() > 0.01
        other = value(states + np.linspace(0.1, 0.9, system.size))
        assert np.abs(other - value(states)).max() > 0.01


@pytest.mark.parametrize("name", ["oscillator", "henon_heiles"])
def test_states_at_times_of_their_own_carry_the_time_as_their_last_number(name):
    system = SYSTEMS[name](1.0, train=4, test=2, times=6)
    train, test = system.load()
    assert train.x.shape == (24, system.size + 1) and len(test.x) == 12 and train.target.shape == (24, system.size)
    assert system.info.shape == (system.size + 1,)
    states, times = train.x[:, :-1].double().numpy(), train.x[:, -1].double().numpy()
    assert (times >= 0).all() and (times <= 1).all() and len(set(times)) == 24 and times.std() > 0.2
    assert len(np.unique(states, axis=0)) == 4, "every state comes six times"
    assert np.abs(train.target.numpy() - exact(system, states, times)).max() < 1e-6
    once = SYSTEMS[name](1.0, train=4, test=2).load()[0].x
    assert torch.equal(train.x[::6, :-1], once), "with times and without, the same states"


def test_states_of_henon_and_heiles_stay_near_the_origin():
    states = HenonHeiles().load()[0].x.double().numpy()
    assert HenonHeiles().invariants["energy"](states).max() < 1 / 6
    assert np.abs(HenonHeiles().flow(states[:100], 50.0)).max() < 1


def test_advection_turns_a_wave_by_its_number_and_is_the_shift_of_the_grid_after_a_point():
    system = Advection(dt=1 / 32)
    states = system.draw(np.random.default_rng(0), 20)
    assert np.abs(system.flow(states, system.dt) - np.roll(states, 1, axis=1)).max() < 1e-13
    assert np.abs(np.fft.rfft(states))[:, 4:].max() < 1e-12 < 0.1 < np.abs(np.fft.rfft(states))[:, 3].max()
    x = np.arange(32) / 32
    wave = np.sin(2 * np.pi * 3 * x)[None]
    assert np.allclose(system.flow(wave, 0.37)[0], np.sin(2 * np.pi * 3 * (x - 0.37)), atol=1e-12)


def test_sir_starts_in_the_triangle_and_its_epidemics_end():
    system = SIR()
    states = system.draw(np.random.default_rng(0), 500)
    assert states.min() >= 0 and np.allclose(states.mean(0), 1 / 3, atol=0.05)
    after = system.flow(states, 60.0)
    assert after.min() >= -1e-12 and after[:, 1].max() < 1e-3 and (after[:, 2] >= states[:, 2]).all()


def test_a_pendulum_in_space_that_starts_in_a_plane_is_the_plane_pendulum():
    a, w = 0.8, 0.5
    state = np.array([[np.sin(a), 0, -np.cos(a), w * np.cos(a), 0, w * np.sin(a)]])
    angle, speed = Pendulum().flow(np.array([[a, w]]), 3.0)[0]
    expected = [np.sin(angle), 0, -np.cos(angle), speed * np.cos(angle), 0, speed * np.sin(angle)]
    assert np.allclose(SphericalPendulum().flow(state, 3.0), expected, atol=1e-9)
    states = SphericalPendulum().draw(np.random.default_rng(0), 500)
    energy = SphericalPendulum().invariants["energy"](states)
    assert 0.95 < energy.max() <= 1 + 1e-12 and energy.min() > -1 and np.abs(states[:, :3].mean(0)).max() < 0.1
    near = SphericalPendulum().nearest(state * 1.1 + 0.01)
    assert abs(np.linalg.norm(near[0, :3]) - 1) < 1e-15 and abs(near[0, :3] @ near[0, 3:]) < 1e-15


def test_a_part_is_the_same_whatever_the_users_seed():
    one, two = (DataModule(Oscillator(train=40, test=10), 10, seed, 8, 20, "oscillator") for seed in (0, 1))
    assert one.digest == two.digest and len(one.split("validation").x) == 8


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (Oscillator, {"dt": 0}), (Oscillator, {"side": -1.0}), (Oscillator, {"times": -1}), (Oscillator, {"test": 2.5}),
        (SIR, {"infection": 0}), (SIR, {"recovery": "x"}), (Advection, {"speed": -1.0}), (Advection, {"modes": 16}),
        (Advection, {"modes": 1.5}), (SphericalPendulum, {"energy": 0.9}),
        (SphericalPendulum, {"energy": "x"}), (SphericalPendulum, {"dt": 0}),
        (HenonHeiles, {"dt": "x"}), (HenonHeiles, {"train": 0}), (HenonHeiles, {"side": 0.3}),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_the_name_of_its_key(system, words):
    with pytest.raises(BadInput, match=f"data.source.{next(iter(words))}: expected a"):
        system(**words)
