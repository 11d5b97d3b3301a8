"""Legal values that are far too large or too small: a sentence, or a certificate that says nothing; no traceback."""

import math

import pytest
import torch
from small_runs import composed

from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.integrators.one_step import ETD
from robode.network import build_network, try_once
from robode.training.assembly import build_data

# The words, and what is said: a sentence where the network cannot run, None where it can.
CASES = {
    "step=1e308": "model: the outputs are not finite with the initial weights; choose a smaller step",
    "integrator=imex step=1e160": "model: the outputs are not finite",
    "model.kappa=1e160": "model: the outputs are not finite",
    "model.kappa=1e-310": "model: the outputs are not finite",
    "model.init_std=1e20": "model: the outputs are not finite",
    "model.init_std=1e38": "model.kappa: expected a number where model.init_std=0 or leaves no finite",
    "model.norm_bound=1e300": "its numbers are too large or too small",
    "model.gamma=factor model.factor=1e308": None,
    "model.gamma=factor model.factor=1e160": None,
    "model.eta=1e-310": None,
    "step=1e160": None,
    "step=1e-310": None,
}


@pytest.mark.parametrize("words", CASES)
def test_extreme_values(words: str) -> None:
    config = composed("data=double_moons", "depth=2", *words.split())
    torch.manual_seed(0)
    if (line := CASES[words]) is not None:
        with pytest.raises(BadInput) as error:
            network = build_network(config, build_data(config).info)
            try_once(network, torch.rand(2, 2))
        assert line in str(error.value) and "\n" not in str(error.value)
        return
    network = build_network(config, build_data(config).info)
    try_once(network, torch.rand(2, 2))
    flow = network.flow
    assert all(bound >= 0 for bound in (flow.certificate_table() | flow.certificate()).values())
    flow.properties()
    flow.warnings()


def test_a_bound_that_overflows_certifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = CHNode(2, 2, ETD())
    step, field = type(flow.steps()[0]), type(flow.fields()[0])
    monkeypatch.setattr(step, "lipschitz", lambda self: 1e308**2)
    monkeypatch.setattr(field, "lognorm", lambda self: math.nan)
    assert flow.certificate() == {"flow_ode": math.inf, "flow_discrete": math.inf}


def test_trying_a_network_changes_nothing() -> None:
    """Neither weights, nor modes of parts that are frozen, nor the generator."""
    config = composed("data=double_moons", "depth=2")
    network = build_network(config, build_data(config).info)
    network.encoder.eval()
    x, before = torch.rand(2, 2), {k: v.clone() for k, v in network.state_dict().items()}
    generator = torch.get_rng_state()
    try_once(network, x)
    assert network.training and network.flow.training and not network.encoder.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator) and all(p.grad is None for p in network.parameters())
