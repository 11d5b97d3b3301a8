"""eps_r: no input within the certified radius of a point gets another class, and one at the attacked radius does.

Tried to break from both sides: by linear classifiers, whose radius is known in closed form, and by a dense grid around
points of random networks of each family, which must find nothing inside and must not beat the attack.
"""

from __future__ import annotations

import math

import pytest
import torch
from problems import randn
from torch import Tensor

from robode.certificates.branch_and_bound import radii
from robode.data.info import DatasetInfo
from robode.encoders import Augment
from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.heads import Identity
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.network import Network, states_of
from robode.ode.enclosure import Enclosure
from robode.ode.flow import Flow
from robode.ode.step import Chain
from robode.quantities.plane import EpsR
from robode.tasks.classification import Classification

GAP = 5e-3
FLOWS = {
    "chnode euler": lambda: CHNode(2, 4, Euler(), step=0.05, shared=True, init_std=2.0, kappa=0.04),
    "chnode etd": lambda: CHNode(4, 3, ETD(), activation="sigmoid", init_std=2.0),
    "chnode substeps": lambda: CHNode(2, 2, Euler(substeps=3), step=0.1, kappa=0.1),
    "hdnn": lambda: HDNN(4, 3, SymplecticEuler(), separable=True),
    "resnet": lambda: ResNet(3, 3, Euler(), activation="leaky_relu"),
    "node": lambda: Node(2, 4, Euler(), step=0.2, hidden=[8, 8]),
    "node rk4": lambda: Node(2, 2, RK4(), step=0.3, hidden=[8], activation="softplus"),
    "node relu": lambda: Node(2, 3, Euler(), step=0.3, hidden=[8], activation="relu"),
    "one layer": lambda: Node(3, 3, RK4(), step=0.5, hidden=[]),
}


def network(flow: Flow, classes: int = 2, seed: int = 0) -> Network:
    """With a steep random head, so that boundaries run close to the points."""
    torch.manual_seed(seed)
    net = Network(
        DatasetInfo((2,), (0.3, -0.2), (0.8, 1.5), None, Classification(tuple(map(str, range(classes))))), flow
    )
    net.head.weight.data.normal_(0, 3)
    net.head.bias.data.normal_(0, 1)
    return net


def named(name: str, classes: int = 3) -> Network:
    torch.manual_seed(3)
    return network(FLOWS[name](), classes)


def classes_of(net: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.double()(x.double()).argmax(1)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_linear_classifiers_radius_is_the_distance_to_its_hyperplanes(classes: int) -> None:
    flow = ResNet(2, 2, Euler())
    flow.K.data.zero_()
    flow.b.data.zero_()  # y + h tanh(0) = y
    net = network(flow, classes)
    x = randn(12, 2, seed=1)
    labels = classes_of(net, x)
    W, b = net.head.weight.detach() / net.normalise.std, net.head.bias.detach()  # back to data units
    b = b - W @ net.normalise.mean
    true = [
        min(float(((W[y] - W[k]) @ p + b[y] - b[k]) / (W[y] - W[k]).norm()) for k in range(classes) if k != y)
        for p, y in zip(x, labels.tolist(), strict=True)
    ]
    found = radii(net, x, labels, reach=20.0, gap=GAP)
    true_radius = torch.tensor(true, dtype=torch.float64)
    assert bool((true_radius > 0).all()) and bool((true_radius < 20).all())
    assert bool((found.lower <= true_radius).all()), "certified more than there is"
    assert bool((found.upper >= true_radius).all()), "attacked without leaving the class"
    assert bool((found.lower >= (1 - GAP) * found.upper).all())
    assert bool((found.upper <= (1 + 1e-4) * true_radius).all()), "the attack does not reach the boundary"


@pytest.mark.parametrize("name", FLOWS)
def test_no_grid_point_inside_the_certified_radius_changes_class_and_none_beats_the_attack(name: str) -> None:
    net = named(name)
    x = 2 * randn(3, 2, seed=7)
    labels = classes_of(net, x)
    reach = 3.0
    found = radii(net, x, labels, reach=reach, gap=GAP)
    angle = torch.linspace(0, 2 * math.pi, 241, dtype=torch.float64)
    radius = reach * torch.linspace(0, 1, 101, dtype=torch.float64)[1:]
    disc = (radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=1)).reshape(-1, 2)
    moved = classes_of(net, (x[:, None] + disc).reshape(-1, 2)).reshape(3, -1) != labels[:, None]
    nearest = torch.where(moved, disc.norm(dim=1), math.inf).amin(1)
    assert bool((found.lower < nearest).all()), "a point inside the certified ball changes class"
    assert bool((found.upper <= nearest).all()), "the grid is a better attack"
    assert bool((found.lower >= (1 - GAP) * found.upper.clamp(max=reach)).all())
    assert found.upper.isfinite().any(), "nothing was tested"
    attacked = found.upper.isfinite()
    distance = (found.nearest - x).norm(dim=1)
    assert torch.allclose(distance[attacked], found.upper[attacked], rtol=1e-12)
    assert bool((classes_of(net, found.nearest[attacked]) != labels[attacked]).all())


def test_points_that_are_classified_wrongly_have_radius_zero_and_unreached_ones_their_reach() -> None:
    net = named("node")
    x = 2 * randn(4, 2, seed=7)
    labels = classes_of(net, x)
    wrong = radii(net, x, (labels + 1) % 3, reach=3.0)
    assert wrong.lower.tolist() == wrong.upper.tolist() == [0.0] * 4
    near = radii(net, x, labels, reach=0.01)
    assert near.upper.tolist() == [math.inf] * 4
    assert near.lower.tolist() == pytest.approx([0.01] * 4)


@pytest.mark.parametrize("name", FLOWS)
def test_enclosures_hold_every_state_and_shrink_with_the_square_of_the_box(name: str) -> None:
    flow = named(name).flow.double()
    n, excess = flow.width, []
    for half in (0.2, 0.02, 0.002):
        centre = randn(n, 1, seed=5)
        sides = half * torch.eye(n, dtype=torch.float64)[:, :, None]
        out = Chain(flow.steps()).enclose(Enclosure(centre, sides, torch.zeros_like(centre)))
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * n).T
        inside = centre + half * torch.cat([corners, 2 * torch.rand(n, 500, dtype=torch.float64) - 1], dim=1)
        with torch.no_grad():
            images = flow(inside.T).T
        low, high = images.amin(1), images.amax(1)
        assert bool(((out.centre - out.radius)[:, 0] <= low).all()), "a state below its enclosure"
        assert bool(((out.centre + out.radius)[:, 0] >= high).all()), "a state above its enclosure"
        excess.append(float((out.radius[:, 0] - (high - low) / 2).max()))
    if flow.activation.name not in ("relu", "leaky_relu"):  # a kink inside the box costs first order
        assert excess[2] < excess[1] / 50, excess


class Bent(Augment):
    """(sin 8 pi x_1, x_2): boxes have no exact images under it."""

    affine = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.stack([torch.sin(8 * math.pi * x[:, 0]), x[:, 1]], dim=1))


def test_an_encoder_that_is_not_affine_gets_no_proof() -> None:
    flow = FLOWS["node"]()
    net = Network(named("node").info, flow, Bent((2,), states_of(flow)))
    with pytest.raises(BadInput, match="eps_r: expected an encoder and a head that are affine"):
        radii(net, randn(4, 2, seed=7), torch.zeros(4, dtype=torch.int64), reach=1.0)
    assert not EpsR().suits(net) and EpsR().suits(named("node"))


def test_a_head_that_is_the_state_itself_is_affine() -> None:
    """Against the same network whose head is a linear layer with the unit matrix."""
    flow, info = FLOWS["node"](), named("node", 2).info
    net, same = Network(info, flow, head=Identity(2, 2)), Network(info, flow)
    same.head.weight.data.copy_(torch.eye(2))
    same.head.bias.data.zero_()
    x = 2 * randn(5, 2, seed=7)
    one, two = (radii(each, x, classes_of(each, x), reach=2.0, gap=GAP) for each in (net, same))
    assert torch.equal(one.lower, two.lower) and torch.equal(one.upper, two.upper) and EpsR().suits(net)
