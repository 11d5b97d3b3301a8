"""Certificates are of the weights as they are. Every iteration that confines weights (orthonormalisation, power
iteration, clipping of singular values) is made to fail here, and no network stretches by more than is certified."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robode.certificates.radius import constants
from robode.data.info import DatasetInfo
from robode.encoders import BoundedConv, FlatLinear, States, usual_encoder
from robode.families.chnode import CHNode
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.families.gradient_flow import GradientFlow
from robode.families.lipschitz_mlp import LipschitzMLP
from robode.families.resnet import ResNet
from robode.heads import Orthonormal
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.network import Network, features, states_of
from robode.ode.flow import Constrained, Flow
from robode.tasks.classification import Classification

INFO = DatasetInfo((1, 4, 4), (0.3,), (0.5,), (0.0, 1.0), Classification(tuple("abc")))
PLACES = ("families.gradient_flow", "families.conv_gradient_flow", "heads", "encoders")


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What iterations leave when they do not converge: nothing is done, and norms are said to be small."""
    for place in PLACES:
        monkeypatch.setattr(f"robode.{place}.orthonormal", lambda W: W)
    monkeypatch.setattr("robode.encoders.conv_norm", lambda W, *size: W.new_zeros(()).double())
    small = "robode.families.conv_gradient_flow.norms_squared"
    monkeypatch.setattr(small, lambda W, *size: W.new_full(W.shape[:1], 1e-3))
    monkeypatch.setattr("robode.families.layered.clipped", lambda W, bound: W)


FLOWS: dict[str, Callable[[], Flow]] = {
    "gradient_flow": lambda: GradientFlow(16, 2, Euler()),
    "learned tau": lambda: GradientFlow(16, 2, Euler(), tau="learned"),
    "lipschitz_mlp": lambda: LipschitzMLP(16, 2, Euler()),
    "conv": lambda: ConvGradientFlow(9, 2, Euler(), stages=2),
    "chnode": lambda: CHNode(4, 2, ETD(), norm_bound=0.5),
    "resnet": lambda: ResNet(4, 2, Euler(), norm_bound=0.5),
}


def network(flow: Flow) -> Network:
    states = states_of(flow)
    if flow.flattens:
        encoder = FlatLinear(INFO.shape, States(flow.width, True))
    else:
        encoder = usual_encoder(INFO.shape, states, bounded=True)
        assert isinstance(encoder, BoundedConv)
    return Network(INFO, flow, encoder, Orthonormal(features(INFO, encoder, flow), 3))


@torch.no_grad()
def stretch(function: Callable[[Tensor], Tensor]) -> float:
    """The largest quotient near 200 samples, along directions that power iteration has turned to the steepest."""
    x = torch.randn(200, *INFO.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    d = torch.randn(200, *INFO.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    best = 0.0
    for _ in range(20):
        d = 1e-4 * d / d.flatten(1).norm(dim=1)[:, None, None, None]
        _, pulled = torch.autograd.functional.vjp(function, x, function(x + d) - function(x))
        best = max(best, float((function(x + d) - function(x)).norm(dim=1).max()) / 1e-4)
        d = pulled
    return best


@pytest.mark.parametrize("name", FLOWS)
def test_no_network_stretches_more_than_is_certified_where_no_iteration_converged(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    torch.manual_seed(3)
    found = network(FLOWS[name]())
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(2)
    for module in found.modules():
        if isinstance(module, Constrained):
            module.project_()
    monkeypatch.undo()
    certified = constants(found, INFO.shape).end_to_end
    measured = stretch(found.double().eval())
    assert 1 < certified < math.inf and measured <= certified * (1 + 1e-6)
