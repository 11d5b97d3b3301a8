"""SympNets in the house: their time is that of the data, nonsense is refused by the name of its key, they learn."""

import pytest
import torch
from small_runs import composed

from robode.api.training import run_training
from robode.certificates.radius import constants
from robode.data.oscillator import Oscillator
from robode.errors import BadInput
from robode.families.sympnet import SympNet
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.network import build_network


def network(*words: str):
    config = composed("model=sympnet", *words)
    source = config.data.source.build()
    return build_network(config, source.info)


def test_the_time_is_that_of_the_data():
    assert network("data=oscillator", "depth=4").flow.horizon == pytest.approx(0.1)
    assert network("data=pendulum", "depth=2").flow.horizon == pytest.approx(0.5)
    assert network("data=oscillator", "data.source.dt=0.3", "horizon=0.3", "depth=3").flow.h == pytest.approx(0.1)
    assert float(network("data=oscillator", "depth=4", "step=0.025").flow.h) == 0.025


@pytest.mark.parametrize("words", [("step=0.1", "depth=2"), ("horizon=0.2",)])
def test_another_time_than_that_of_the_data_is_refused(words):
    with pytest.raises(BadInput, match=r"horizon \(depth\*step\): expected 0.1, the time .* got 0.2; leave step"):
        network("data=oscillator", *words)


def test_samples_that_say_their_time_need_the_family_that_is_bound_to_it_and_the_other_way_round():
    with pytest.raises(BadInput, match="each of these samples says its own; choose sympflow"):
        network("data=oscillator_paths", "model.width=4")
    with pytest.raises(BadInput, match=r"needs samples that say their time, .* of these are 0.1 apart: choose sympnet"):
        network("data=oscillator", "model=sympflow")
    with pytest.raises(BadInput, match=r"encoder=time: expected a model that is bound to a time"):
        network("data=oscillator_paths", "model=residual", "encoder=time")
    with pytest.raises(BadInput, match=r"choose encoder=time|model.width"):
        network("data=oscillator_paths", "model=sympflow", "encoder=auto", "model.width=4")


def test_a_training_that_cannot_be_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (("data=oscillator", "horizon=0.2"), ("data=oscillator_paths",), ("data=sparse_regression",)):
        with pytest.raises(BadInput):
            run_training(composed("model=sympnet", *words), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("modules", ["gradient", "la"])
def test_the_network_is_certified_from_end_to_end(modules):
    found = network("data=oscillator", "depth=2", f"model.modules={modules}")
    bounds = found.flow.certificate()
    assert 1 < bounds["flow_discrete"] < 100
    assert constants(found, (2,)).end_to_end == pytest.approx(bounds["flow_discrete"], rel=1e-6)


def test_a_state_is_the_output_and_as_wide_as_the_data():
    found = network("data=henon_heiles", "depth=2", "model.modules=la")
    x = torch.randn(5, 4)
    assert found.flow.width == 4 and torch.equal(found(x), found.flow(x))
    assert found.flow.properties()["horizon"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"width": 3}, "model.width: expected an even number, d positions and d momenta, got 3"),
        ({"modules": "ga"}, "model.modules: expected gradient or la, got 'ga'"),
        ({"hidden": 0}, "model.hidden: expected a whole number >= 1, got 0"),
        ({"sublayers": 1.5}, "model.sublayers: expected a whole number >= 1, got 1.5"),
        ({"integrator": RK4()}, "integrator=rk4: a shear is exact; expected euler with one substep"),
        ({"integrator": Euler(substeps=2)}, "integrator=euler: a shear is exact; expected euler with one substep"),
    ],
)
def test_nonsense_is_refused(keys, expected):
    with pytest.raises(BadInput, match=expected.replace("(", r"\(")):
        SympNet(**{"width": 2, "depth": 1, "integrator": Euler()} | keys)


@pytest.mark.parametrize("modules", ["gradient", "la"])
def test_it_learns_the_rotation_and_keeps_its_energy(modules):
    """A few seconds of training; a state keeps its energy to a few percent over a hundred times that time."""
    torch.manual_seed(1)
    flow = SympNet(2, 2, Euler(), modules=modules)
    flow.span(0.5, False)
    train, test = Oscillator(dt=0.5, train=256, test=100).load()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        loss = (flow(train.x) - train.target).square().mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float((flow(test.x) - test.target).square().mean().sqrt()) < 0.03
        y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        flow.double()
        energies = []
        for _ in range(200):
            y = flow(y)
            energies.append(float(y.square().sum() / 2))
    assert 0.4 < min(energies) and max(energies) < 0.6
