"""Denoisers are averaged with the constant that is certified, on pictures of other sizes than they were trained on, and
iterations that are made of them settle as the theorem says. docs/theory.md, section 30.
"""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from robode.data.info import DatasetInfo
from robode.deblurring import Blur, motion_kernel
from robode.encoders import ZeroChannels
from robode.errors import BadInput
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.families.dncnn import DnCNN
from robode.heads import Projection
from robode.integrators.euler import Euler
from robode.iterations import Iteration, Map, clip
from robode.network import Network, features, states_of
from robode.ode.flow import Flow
from robode.quantities.denoisers import denoiser, largest_growth, plug_and_play, strengthened
from robode.tasks.denoising import Denoising

INFO = DatasetInfo((2, 12, 12), (0.0, 0.0), (1.0, 1.0), None, Denoising(288, noise=0.15))
SIZES = [(12, 12), (5, 17), (24, 9)]  # of the training, and others
SLACK = 1 + 1e-9


def network(flow: Flow) -> Network:
    encoder = ZeroChannels(INFO.shape, states_of(flow))
    return Network(INFO, flow, encoder, Projection(features(INFO, encoder, flow), INFO.task.outputs))


def trained(theta: float = 0.9, **options: object) -> Network:
    """A few steps at a large rate, so that every layer is as long as it may be."""
    torch.manual_seed(0)
    keys = {"stages": 1, "expansion": 1, "activation": "leaky_relu", "sizes": "every", **options}
    found = network(ConvGradientFlow(5, 4, Euler(), theta=theta, **keys))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(found.parameters(), lr=0.1)
    clean = torch.rand(8, 2, 1, 1).expand(8, 2, 12, 12)
    for _ in range(15):
        loss = (found(clean + 0.15 * torch.randn(8, 2, 12, 12)) - clean.flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.flow.project_()
    return found.double().eval()


@cache
def certified() -> Network:
    return trained()


@cache
def uncertified() -> Network:
    torch.manual_seed(0)
    return network(DnCNN(2, 4, Euler(), hidden=6)).double().eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_no_two_pictures_of_any_size_move_apart(size: tuple[int, int]) -> None:
    """The inequality of averaged maps, with the certified constant, for random pairs and for near ones."""
    N = denoiser(certified())
    assert N.lipschitz == 1 and 0.9 < N.averaged < 1
    for seed in range(10):
        x = random(6, 2, *size, seed=seed)
        for far in (1.0, 1e-3):
            z = x + far * (random(6, 2, *size, seed=seed + 100) - 0.5)
            apart, after = (x - z).flatten(1).norm(dim=1), (N(x) - N(z)).flatten(1).norm(dim=1)
            assert bool((after <= apart * SLACK).all())
            moved = ((x - N(x)) - (z - N(z))).flatten(1).norm(dim=1)
            rest = (1 - N.averaged) / N.averaged * moved.square()
            assert bool((after.square() + rest <= apart.square() * SLACK).all())


@pytest.mark.parametrize("size", SIZES)
def test_the_jacobian_of_a_layer_lies_between_1_minus_2_theta_and_1(size: tuple[int, int]) -> None:
    """From both sides: below 1.9 times the limit a layer is averaged, and some layer nearly attains its constant."""
    flow = copy.deepcopy(certified().flow)
    assert isinstance(flow, ConvGradientFlow)
    reached = []
    for field in flow.exact().fields():
        theta = field.euler_averaged(float(flow.h))  # type: ignore[attr-defined]
        assert theta <= flow.theta
        x = random(1, 5, *size) - 0.5

        def layer(y: Tensor, field: object = field) -> Tensor:
            return y + flow.h * field(0.0, y)  # type: ignore[operator]

        J = torch.autograd.functional.jacobian(layer, x).reshape(x.numel(), x.numel())
        values = torch.linalg.eigvalsh((J + J.T) / 2)
        assert float((J - J.T).abs().max()) < 1e-12
        assert 1 - 2 * theta - 1e-9 <= float(values[0]) and float(values[-1]) <= 1 + 1e-9
        reached.append((1 - float(values[0])) / (2 * theta))
    assert max(reached) > 0.7


def test_the_constant_is_that_of_the_composition() -> None:
    flow = certified().flow.exact()
    theta = [field.euler_averaged(float(flow.h)) for field in flow.fields()]  # type: ignore[attr-defined]
    total = sum(each / (1 - each) for each in theta)
    assert certified().flow.averagedness() == pytest.approx(total / (1 + total))
    assert max(theta) <= 0.9 and len(theta) == 4


def test_nothing_is_certified_where_nothing_is_averaged() -> None:
    """Orthonormal rows and tau = 2, which reflect, a longer W, DnCNN, and stages, which are no map of one space."""
    for sizes in ("one", "every"):
        at_the_limit = ConvGradientFlow(5, 2, Euler(), 2.0, stages=1, expansion=1, theta=1.0, sizes=sizes)
        at_the_limit.build((5, 9, 9))
        with torch.no_grad():
            at_the_limit.K[0].zero_()
            at_the_limit.K[0][..., 1, 1] = torch.eye(5)
        assert at_the_limit.averagedness() == math.inf
        with torch.no_grad():
            at_the_limit.K[0].mul_(0.98)
        assert at_the_limit.averagedness() < 1
    assert uncertified().flow.averagedness() == math.inf == denoiser(uncertified()).lipschitz
    longer = copy.deepcopy(certified())
    with torch.no_grad():
        longer.flow.K[0].mul_(2)  # type: ignore[union-attr, operator]
    assert longer.flow.averagedness() == math.inf
    flow = ConvGradientFlow(4, 2, Euler(), stages=2)
    flow.build((4, 8, 8))
    assert flow.averagedness() == math.inf


def test_a_strength_keeps_the_constants_and_scales_the_noise() -> None:
    N = denoiser(certified())
    for s in (0.5, 4.0):
        other = strengthened(N, s)
        assert (other.lipschitz, other.averaged) == (N.lipschitz, N.averaged)
        x, z = random(4, 2, 9, 9), random(4, 2, 9, 9, seed=1)
        torch.testing.assert_close(other(x) * s, N(s * x))
        apart = (x - z).flatten(1).norm(dim=1)
        assert bool(((other(x) - other(z)).flatten(1).norm(dim=1) <= apart * SLACK).all())


def problem(side: int = 16, length: int = 5, noise: float = 0.05) -> tuple[Blur, Tensor]:
    blur = Blur.of(motion_kernel(length), (side, side))
    x = random(3, 2, 4, 4).repeat_interleave(side // 4, 2).repeat_interleave(side // 4, 3)
    return blur, blur(x) + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.9])
def test_steps_never_grow_and_the_iterates_settle_in_the_box(tau: float) -> None:
    """(B): averaged and clipped. 15 pixels of 15: a blur that loses frequencies, so that there is no contraction."""
    blur, y = problem(15 + 1, 5) if tau != 1.0 else problem(20, 5)
    iteration = plug_and_play(strengthened(denoiser(certified()), 2.0), blur, y, tau).proven()
    if tau == 1.0:
        assert blur.mu < 1e-20 and iteration.T.lipschitz == 1 and iteration.theorem == "averaged"
    found = iteration.run(y, 400)
    assert largest_growth(found.steps, 1e-13) <= SLACK
    k = torch.arange(400)
    for place, first in enumerate(found.steps[0].tolist()):
        bound = iteration.bound(k, first, math.sqrt(y[0].numel()))
        assert bool((found.steps[:, place] <= bound * SLACK).all())
    assert bool((found.steps[-1] < 1e-2 * found.steps[0]).all())
    assert float(found.x.min()) >= 0 and float(found.x.max()) <= 1


def test_a_blur_that_loses_no_frequency_gives_a_contraction_with_that_rate() -> None:
    """(A): every start leads to one fixed point, at least as fast as max(|1 - tau mu|, |1 - tau L|) says."""
    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.6, 0.1], [0.0, 0.1, 0.0]], dtype=torch.float64)
    blur, y = Blur.of(kernel, (12, 12)), random(2, 2, 12, 12)
    iteration = plug_and_play(denoiser(certified()), blur, y, 1.0)
    q = max(abs(1 - blur.mu), abs(1 - blur.L))
    assert iteration.theorem == "contraction" and iteration.T.lipschitz == pytest.approx(q) and q < 0.97
    first, second = (iteration.run(random(2, 2, 12, 12, seed=seed), 600).x for seed in (3, 4))
    torch.testing.assert_close(first, second, atol=1e-7, rtol=0)
    assert largest_growth(iteration.run(y, 100).steps, 1e-13) <= q * SLACK


def test_without_a_proof_it_is_refused_and_without_a_clip_too() -> None:
    blur, y = problem()
    with pytest.raises(BadInput, match="'denoiser' is not proven nonexpansive; choose a certified network"):
        plug_and_play(denoiser(uncertified()), blur, y, 1.0).proven()
    with pytest.raises(BadInput, match="clip to a bounded box"):
        Iteration(denoiser(certified())).proven()
    at_the_limit = Map("denoiser", lambda x: x, averaged=1.0)  # orthonormal rows and tau = 2/S
    with pytest.raises(BadInput, match="'denoiser' is nonexpansive and no more; choose a certified network, steps"):
        Iteration(at_the_limit, clip(0.0, 1.0)).proven()


def test_a_denoiser_at_the_limit_may_turn_for_ever() -> None:
    """x - 2 w relu(w.x) with a unit vector w: a reflection of half of space, whose second application is the first's
    inverse. With relu replaced by the identity it never settles; theta below 1 does."""
    w = torch.tensor([0.6, 0.8], dtype=torch.float64)
    for tau, last in ((2.0, 2.0), (1.8, 0.0)):
        turned = Map("layer", lambda x, tau=tau: x - tau * (x @ w)[:, None] * w, averaged=tau / 2)  # type: ignore[misc]
        found = Iteration(turned).run(w[None], 200)
        assert float(found.steps[-1]) == pytest.approx(last, abs=1e-12)


def test_repeated_application_of_a_certified_denoiser_settles() -> None:
    """Its steps never grow, whether it has a fixed point or not; those of a network with batch normalisation may."""
    x = random(3, 2, 14, 10)
    steps = Iteration(denoiser(certified())).run(x, 300).steps
    assert largest_growth(steps, 1e-12) <= SLACK
    wild = copy.deepcopy(uncertified())
    with torch.no_grad():
        wild.flow.layers[-1].weight.mul_(20)  # type: ignore[union-attr, index, operator]
    assert largest_growth(Iteration(denoiser(wild)).run(x, 5).steps, 1e-12) > 1


def test_growth_looks_at_long_steps_alone() -> None:
    steps = torch.tensor([[1.0, 2.0], [0.5, 1.0], [0.4, 1e-9], [0.6, 1e-6]])
    assert largest_growth(steps, 1e-3) == pytest.approx(1.5)
    assert largest_growth(steps[:1], 1e-3) == 0 and largest_growth(steps * math.inf, 1e-3) == math.inf
