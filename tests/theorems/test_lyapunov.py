"""Theorem 2 of LyaNet, and what its Monte Carlo loss does and does not bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robode.data.info import DatasetInfo
from robode.encoders import MLPControl
from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.data_node import DataNode
from robode.heads import Identity, Linear
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.runge_kutta import RK4, RK38
from robode.network import Network, states_of
from robode.objectives.barrier import Barrier
from robode.objectives.lyapunov import Potential, Shared, along_fields, potential, rates
from robode.objectives.lyapunov_mc import LyapunovMC
from robode.ode.bounds import Scalar
from robode.ode.controlled import ControlledField
from robode.ode.field import VectorField
from robode.papers.spec import find_item
from robode.tasks.classification import Classification

N = 3
INFO = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(tuple("abc")))
LABELS = torch.tensor([0, 2, 1, 1])


def states(count: int, n: int = N, seed: int = 0) -> Tensor:
    return 4 * torch.randn(n, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(head: nn.Module | None = None, **keys) -> Network:
    torch.manual_seed(1)
    flow = DataNode(N, 4, RK4(), **({"hidden": 5, "dropout": 0.0} | keys))
    encoder = MLPControl((2,), states_of(flow), hidden=[8])
    return Network(INFO, flow, encoder, head or Identity(N, N)).double()


def samples(count: int = 4) -> Tensor:
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("truncate", [0.0, 0.7])
@pytest.mark.parametrize("linear", [False, True])
def test_the_closed_form_is_the_derivative(linear: bool, truncate: float) -> None:
    """grad V . f in closed form, by torch.func.jvp through the same head behind a lambda, and by differences."""
    torch.manual_seed(0)
    head = (Linear(N, 3) if linear else Identity(N, N)).double()
    eta, f = states(6), torch.randn(4, N, 6, dtype=torch.float64)
    closed = rates(head, eta, f, LABELS, truncate)
    opaque = nn.Sequential(head)  # no matrix to be seen
    derived = rates(opaque, eta, f, LABELS, truncate)
    for mine, its in zip((closed.value, closed.rate), (derived.value, derived.rate), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-12)
    h = 1e-6
    for b, label in enumerate(LABELS):
        there, back = (potential(head((eta + s * h * f[b]).T), label.expand(6), truncate) for s in (1, -1))
        torch.testing.assert_close(closed.rate[b], (there - back) / (2 * h), rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Falling(ControlledField):
    """Along -grad V_y, so fast that dV/dt = -rate V exactly."""

    labels: Tensor
    rate: float

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        gradient = y.softmax(0) - torch.nn.functional.one_hot(self.labels, len(y)).T
        V = potential(y.T, self.labels)
        return -self.rate * V * gradient / gradient.square().sum(0)

    def on_all(self, t: Scalar, y: Tensor) -> Tensor:
        return torch.stack([type(self)(label.expand(y.shape[1]), self.rate)(t, y) for label in self.labels])


@pytest.mark.parametrize("kappa", [0.5, 3.0])
def test_theorem_2_no_loss_where_the_potential_falls_at_the_rate(kappa: float) -> None:
    """The point-wise loss is 0 on the field that falls at the rate, and is not where it falls a little slower; where it
    is 0, the solution from 0 obeys V(t) <= V(0) e^(-kappa t)."""
    eta = states(200)
    found = rates(Identity(N, N), eta, Falling(LABELS, kappa).on_all(0.0, eta), LABELS)
    assert float((found.rate + kappa * found.value).clamp_min(0).max()) < 1e-12
    slower = rates(Identity(N, N), eta, Falling(LABELS, 0.99 * kappa).on_all(0.0, eta), LABELS)
    assert bool((slower.rate + kappa * slower.value > 0).all())
    step = Dopri5(1e-11, 1e-11).step(Falling(LABELS, kappa), 0.0, 1.0)
    V = potential(step(torch.zeros(N, 4, dtype=torch.float64)).T, LABELS)
    torch.testing.assert_close(V, torch.full_like(V, math.log(N) * math.exp(-kappa)), rtol=1e-6, atol=0)


def test_theorem_2_from_the_condition_by_gronwall() -> None:
    """Any field: with kappa the smallest rate -V'/V along a path V stays below V(0) e^(-kappa t), with the largest one
    above it."""
    net, x = network(gain=3.0), samples()
    y, context = net.encode(x)
    field = net.flow.fields(context)[0]
    path, measured = [y.T], []
    h, steps = 1e-3, 400
    with torch.no_grad():
        for _ in range(steps):
            f = field(0.0, path[-1])
            own = rates(net.head, path[-1], f.T[..., None].expand(4, N, 4), LABELS)
            V, rate = own.value.diagonal(), own.rate.diagonal()
            measured.append(-rate / V)
            path.append(RK4().step(field, 0.0, h)(path[-1]))
        V = torch.stack([potential(z.T, LABELS) for z in path])
        t = h * torch.arange(steps + 1, dtype=torch.float64)[:, None]
        slow, fast = torch.stack(measured).amin(0), torch.stack(measured).amax(0)
        assert bool((V <= V[0] * torch.exp(-slow * t) * (1 + 1e-3)).all())  # rates between grid points
        assert bool((V >= V[0] * torch.exp(-fast * t) * (1 - 1e-3)).all())


def test_lemma_1_fails_where_the_truncated_loss_vanishes() -> None:
    """V >= sigma |eta - eta*| for one eta* and some sigma > 0, as Definition 1 asks, is false for the truncated
    cross-entropy: it is 0 at two states that are far apart, whatever gamma > 0 is; and cross-entropy itself does not
    see a shift of all logits."""
    one = torch.tensor([[20.0, -20.0, -20.0]], dtype=torch.float64)
    other = torch.tensor([[40.0, -20.0, -30.0]], dtype=torch.float64)
    label = torch.tensor([0])
    for gamma in (1e-3, 1e-9):
        assert float(potential(one, label, gamma)) == float(potential(other, label, gamma)) == 0.0
    assert float((one - other).norm()) > 20
    shifted = potential(one + 1000.0, label)
    torch.testing.assert_close(shifted, potential(one, label), rtol=0, atol=1e-12)


def test_the_monte_carlo_loss_is_no_bound_of_the_loss_along_paths() -> None:
    """A field that falls at the rate everywhere but in a small ball around 0, in which it stands still: no random state
    may lie in it, while the path from 0 never leaves it and violates all the time."""

    @dataclass(frozen=True)
    class Stuck(Falling):
        width: float = 1e-3

        def __call__(self, t: Scalar, y: Tensor) -> Tensor:
            return torch.where(y.norm(dim=0) < self.width, 0.0, super().__call__(t, y))

    kappa = 2.0
    shared = Shared(4000, "hypercube", 4.0, kappa, 0.0, "objective.lyapunov_mc")
    torch.manual_seed(0)
    eta = shared.draw(N, torch.zeros((), dtype=torch.float64))
    found = rates(Identity(N, N), eta, Stuck(LABELS, kappa).on_all(0.0, eta), LABELS)
    sampled = (found.rate + kappa * found.value).clamp_min(0).mean()
    zero = torch.zeros(N, 1, dtype=torch.float64)
    along = rates(Identity(N, N), zero, Stuck(LABELS, kappa).on_all(0.0, zero), LABELS)
    on_path = (along.rate + kappa * along.value).clamp_min(0).mean()
    assert float(sampled) < 1e-9 and float(on_path) == pytest.approx(kappa * math.log(N))


def test_barrier_is_kept_and_reached() -> None:
    """The condition -dh/dt <= alpha h, h = log 2 - V, is met by a field whose V falls, inside {h >= 0} by any that
    leaves it alone, and h = 0 is a state with half of the probability."""
    half = torch.tensor([[0.0], [-60.0], [0.0]], dtype=torch.float64)
    assert float(potential(half.T, torch.tensor([0]))) == pytest.approx(math.log(2))
    less = torch.tensor([[0.0, math.log(2 * math.exp(0.7) - 1), -60.0]], dtype=torch.float64)
    assert float(potential(less, torch.tensor([0]), 0.7)) == pytest.approx(math.log(2))
    assert float(less.softmax(1)[0, 0]) == pytest.approx(math.exp(-0.7) / 2)
    alpha, eta = 3.0, states(300)
    V = rates(Identity(N, N), eta, Falling(LABELS, alpha).on_all(0.0, eta), LABELS)
    assert bool((V.rate - alpha * (math.log(2) - V.value) <= 1e-12).all())
    still = rates(Identity(N, N), eta, torch.zeros(4, N, 300, dtype=torch.float64), LABELS)
    violated = still.rate - alpha * (math.log(2) - still.value) > 0
    assert bool((violated == (still.value > math.log(2))).all()) and bool(violated.any()) and not bool(violated.all())
    net, barrier = network(), Barrier(alpha=alpha, samples=64)
    torch.manual_seed(2)
    term = barrier(net, samples(), LABELS)["barrier"]
    torch.manual_seed(2)
    eta = barrier.states.draw(N, samples())
    found = along_fields(net, samples(), LABELS, eta)
    expected = (found.rate - alpha * (math.log(2) - found.value)).clamp_min(0)
    torch.testing.assert_close(term, expected.mean())
    torch.testing.assert_close(barrier.notes()["barrier_violated"], (expected > 0).double().mean())


def test_fields_without_on_all_get_every_pair() -> None:
    """The states once for each sample: the same rates, for a flow of somebody else's."""
    net, x, eta = network(), samples(), states(6)
    short = along_fields(net, x, LABELS, eta)

    class Plain(DataNode):
        def fields(self, context=None):
            made = super().fields(context)[0]

            class Hidden:
                __call__ = staticmethod(made.__call__)

            return [Hidden()] * self.depth

    net.flow.__class__ = Plain
    long = along_fields(net, x, LABELS, eta)
    assert isinstance(long, Potential)
    torch.testing.assert_close(long.rate, short.rate, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(long.value, short.value, rtol=1e-12, atol=1e-12)


def test_fields_of_layers_that_differ_are_met_at_their_time() -> None:
    """Bound to the sample, without `on_all`, one for each layer: f = j W(x) in layer j, at the time that was drawn."""

    @dataclass(frozen=True)
    class Constant(VectorField):
        speed: Tensor

        def __call__(self, t: Scalar, y: Tensor) -> Tensor:
            return self.speed

        def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
            raise NotImplementedError

    class Layers(DataNode):
        def fields(self, context=None):
            return [Constant(j * context[:, :N].T) for j in range(1, self.depth + 1)]

    net, x, eta = network(), samples(), states(6)
    net.flow.__class__ = Layers
    W, seen = net.encode(x)[1][:, :N], set()
    for seed in range(12):
        torch.manual_seed(seed)
        layer = 1 + int(torch.rand(()) * net.flow.depth)
        torch.manual_seed(seed)
        found = along_fields(net, x, LABELS, eta)
        expected = rates(net.head, eta, layer * W[..., None].expand(-1, N, 6), LABELS)
        torch.testing.assert_close(found.rate, expected.rate)
        seen.add(layer)
    assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize("domain", ["hypersphere", "hypercube"])
def test_where_states_are_drawn(domain: str) -> None:
    torch.manual_seed(0)
    eta = Shared(20000, domain, 2.0, 1.0, 0.0, "k").draw(N, torch.zeros((), dtype=torch.float64))
    radius = eta.norm(dim=0)
    if domain == "hypercube":
        assert float(eta.abs().max()) <= 2.0 and float(eta.abs().mean()) == pytest.approx(1.0, abs=0.02)
        return
    R = 2.0 * math.sqrt(N)
    assert float(radius.max()) <= R and float(radius.mean()) == pytest.approx(R / 2, rel=0.02)  # r uniform: towards 0
    torch.testing.assert_close(eta.mean(1), torch.zeros(N, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize(("classes", "s"), [(10, 3.02), (100, 4.80)])
def test_appendix_B_s_rule_for_the_box(classes: int, s: float) -> None:
    """V(eta*) = e^(-kappa) at the right corner of the box [-s, s]^n: log(1 + (n - 1) e^(-2 s)) = e^(-kappa), that is
    s = 1/2 log((n - 1)/(e^(e^(-kappa)) - 1)), a fifth and a third of the 15 that kappa = log(15 sqrt n) belongs to."""
    kappa = math.log(15 * math.sqrt(classes))
    by_rule = math.log((classes - 1) / math.expm1(math.exp(-kappa))) / 2
    corner = torch.full((1, classes), -by_rule, dtype=torch.float64)
    corner[0, 3] = by_rule
    assert float(potential(corner, torch.tensor([3]))) == pytest.approx(math.exp(-kappa), rel=1e-12)
    assert by_rule == pytest.approx(s, abs=5e-3)


def test_the_ablation_takes_the_s_of_the_rule() -> None:
    """Every number for s and kappa in the rows of `scale`, to the digits that they are given with."""
    kappa = math.log(15 * math.sqrt(10))
    s = math.log(9 / math.expm1(math.exp(-kappa))) / 2
    rows = [row for row in find_item("lyanet_2022/ablations").rows if row.group == "scale"]
    pairs = [override.split("=") for row in rows for override in row.overrides]
    given = [(key.rpartition(".")[2], float(value)) for key, value in pairs if key != "model"]
    assert {key for key, _ in given} == {"scale", "box", "kappa"}
    assert all(value == pytest.approx(kappa if key == "kappa" else s, abs=5e-4) for key, value in given)


@pytest.mark.parametrize("method", [RK38(), Dopri5()])
def test_training_knows_no_solver(method) -> None:
    """Loss and gradients are the same to the bit whatever solves the ODE in how many steps, with dropout's masks: runs
    that differ in the solver alone have the same weights."""
    gradients = []
    for each, depth in ((RK4(), 4), (method, 9)):
        torch.manual_seed(1)
        flow = DataNode(N, depth, each, hidden=5, dropout=0.5)
        net = Network(INFO, flow, MLPControl((2,), states_of(flow), hidden=[8]), Identity(N, N))
        LyapunovMC(samples=32)(net, samples().float(), LABELS)["lyapunov_mc"].backward()
        gradients.append([weights.grad for weights in net.parameters()])
    assert all(bool((a == b).all()) and bool(a.abs().sum() > 0) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", [LyapunovMC, Barrier])
def test_gradients_reach_every_weight(kind) -> None:
    net = network(gain=0.1)
    kind(samples=32)(net, samples(), LABELS).popitem()[1].backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_states_of_two_classes_contradict_each_other() -> None:
    """For a field that knows no sample the conditions of two classes at one state ask for opposite things: at 0, with
    two classes, grad V_0 = -grad V_1. So such models are refused."""
    eta, two = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([0, 1])
    f = torch.randn(1, 2, 1, dtype=torch.float64).expand(2, -1, -1)
    found = rates(Identity(2, 2), eta, f, two)
    assert float(found.rate.sum()) == pytest.approx(0.0, abs=1e-12)  # one of the two rises, or none falls
    net = Network(INFO, CHNode(4, 2, ETD()))
    with pytest.raises(BadInput, match="states shared by two classes make the condition contradictory"):
        LyapunovMC().check(net)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"samples": 0}, "samples: expected a whole number >= 1, got 0"),
        ({"domain": "ball"}, "domain: expected one of hypersphere, hypercube, got ball"),
        ({"kappa": 0.0}, "kappa: expected a number > 0, got 0"),
        ({"kappa": math.nan}, "kappa: expected a number > 0, got nan"),
        ({"scale": -1.0}, "scale: expected a number > 0, got -1"),
        ({"truncate": -0.1}, "truncate: expected a number >= 0, got -0.1"),
    ],
)
def test_bad_input(keys: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=f"objective.lyapunov_mc.{said}"):
        LyapunovMC(**keys)
