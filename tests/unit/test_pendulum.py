"""The flow map of the pendulum: integrated finely enough, drawn once for all, refused where it makes no sense."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from robode.data.module import DataModule
from robode.data.pendulum import Pendulum
from robode.errors import BadInput
from robode.tasks.flow_map import FlowMap


def exact(states, time):
    ends = [
        solve_ivp(lambda t, y: [y[1], -np.sin(y[0])], (0, time), y, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        for y in states
    ]
    return np.array(ends)


@pytest.mark.parametrize("time", [0.003, 0.5, 2.0])
def test_it_is_integrated_far_below_what_float32_can_tell_apart(time):
    states = np.random.default_rng(1).uniform(-2, 2, (20, 2))
    assert np.abs(Pendulum().flow(states, time) - exact(states, time)).max() < 1e-9


def test_targets_are_where_the_states_are_after_the_time():
    source = Pendulum(time=0.5, train=30, test=20)
    train, test = source.load()
    assert (len(train.x), len(test.x)) == (30, 20) and train.x.dtype == train.target.dtype == torch.float32
    assert np.allclose(train.target, exact(train.x.double().numpy(), 0.5), atol=1e-7)
    assert source.info.shape == (2,) and source.info.bounds is None
    assert source.info.task == FlowMap(2, "rad", 0.5, ("energy",))
    assert torch.equal(train.x, Pendulum(time=1.0, train=30, test=20).load()[0].x), "another time, the same states"


def test_the_states_fill_their_box_and_nothing_else():
    train, _ = Pendulum(angle=3.0, momentum=0.5).load()
    most = train.x.abs().amax(0)
    assert bool((most <= torch.tensor([3.0, 0.5])).all()) and bool((most > torch.tensor([2.9, 0.48])).all())
    assert train.x.mean(0).abs().max() < 0.1


def test_a_part_of_it_is_the_same_whatever_the_users_seed():
    one, two = (DataModule(Pendulum(train=40, test=10), 10, seed, 8, 20, "pendulum") for seed in (0, 1))
    for split, count in (("train", 20), ("validation", 8), ("test", 10)):
        assert len(one.split(split).x) == count and torch.equal(one.split(split).x, two.split(split).x)
    assert one.digest == two.digest


@pytest.mark.parametrize("words", [{"time": 0}, {"angle": -1.0}, {"momentum": "x"}, {"train": 0}, {"test": 2.5}])
def test_nonsense_is_refused_by_the_name_of_its_key(words):
    with pytest.raises(BadInput, match=f"data.source.{next(iter(words))}: expected a"):
        Pendulum(**words)


def test_a_source_whose_targets_are_not_of_its_task_is_refused():
    class Mixed(Pendulum):
        def load(self):
            train, test = super().load()
            return train._replace(target=train.target[:, 0]), test

    with pytest.raises(BadInput, match=r"data=mixed, train: expected targets \(n, 2\) float32, got \(30,\)"):
        DataModule(Mixed(train=30, test=20), 10, 0, name="mixed").prepare()
