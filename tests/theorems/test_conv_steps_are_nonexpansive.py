"""Convolutional layers x - h W^T sigma(W x + b) are nonexpansive while h S ||W||^2 <= 2, not beyond; so is the flow.

Every bound is held against dense matrices of small images, from both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import problems
import pytest
import torch
from problems import norm2
from torch import Tensor

from robode.families.conv_gradient_flow import ConvGradientField, ConvGradientFlow, StageChange
from robode.integrators.euler import MAX_SUBSTEPS, Euler
from robode.linalg import convolution
from robode.linalg.activations import ACTIVATIONS, named_activation
from robode.linalg.convolution import HALVINGS, PROOF, Convolution, conv_norm, norms_squared
from robode.linalg.norms import ROUNDING
from robode.linalg.orthonormal import random_orthonormal

randn = partial(problems.randn, seed=0)
SIZES = [(4, 4), (5, 3), (7, 6), (2, 2)]


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of a map of one image x (c, H, W), as a matrix."""
    J = torch.autograd.functional.jacobian(lambda y: f(y[None]).flatten(), x)
    return J.flatten(1)


def dense(W: Convolution, height: int, width: int) -> Tensor:
    return jacobian(W, torch.zeros(W.kernel.shape[1], height, width, dtype=W.kernel.dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(1, 1), (2, 3), (3, 2), (4, 4)])
def test_bounds_of_the_norm_from_both_sides(channels: tuple[int, int], size: tuple[int, int]) -> None:
    for seed in range(5):
        W = Convolution(randn(*channels, 3, 3, seed=seed))
        true = norm2(dense(W, *size))
        certified = W.norm(*size)
        assert true <= certified
        assert certified <= 1.7 * true or size == (2, 2)  # tiny images; 2 % on 20 x 20
        cheap = math.sqrt(float(norms_squared(W.kernel[None], *size)))
        assert certified <= cheap <= certified * math.sqrt(1 + PROOF) * (1 + 1e-6)


def test_the_adjoint_is_the_adjoint() -> None:
    W, x, z = Convolution(randn(4, 3, 3, 3)), randn(2, 3, 5, 6, seed=1), randn(2, 4, 5, 6, seed=2)
    torch.testing.assert_close((W(x) * z).sum(), (x * W.adjoint(z)).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(W(x, torch.ones(4).double()), W(x) + 1)


@pytest.mark.parametrize("iterations", [1, 10])
def test_a_wrong_guess_is_found_out_by_the_factorisation(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the power iteration says, kernels stacked together get the bound that each gets alone."""
    monkeypatch.setattr(convolution, "ITERATIONS", iterations)
    monkeypatch.setattr(convolution, "GUESSES", 1)
    kernels = randn(12, 3, 4, 3, 3) * torch.logspace(-6, 6, 12, dtype=torch.float64)[:, None, None, None, None]
    exact = torch.tensor([conv_norm(kernel, 6, 5) ** 2 for kernel in kernels], dtype=torch.float64)
    ratios = norms_squared(kernels, 6, 5).double() / exact
    assert 1 <= float(ratios.min()) and float(ratios.max()) <= 1 + PROOF + 1e-6


def test_the_cheap_bound_of_flat_spectra_and_of_nothing() -> None:
    """Norms that every frequency attains, and kernels that are zero: no matrix is special."""
    kernels = torch.zeros(2, 3, 3, 3, 3)
    kernels[0, range(3), range(3), 1, 1] = 2.0
    found = norms_squared(kernels, 8, 8)
    assert 4 <= float(found[0]) <= 4 * (1 + 2 * PROOF) and float(found[1]) == 0


def field(kernel: Tensor, activation: str, size: tuple[int, int]) -> ConvGradientField:
    return ConvGradientField(Convolution(kernel), randn(len(kernel), seed=9), named_activation(activation), size)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_step_within_the_limit_is_nonexpansive(activation: str) -> None:
    """The spectrum of I - h W^T D W is in [-1, 1] at the certified h, and in [1 - h S ||W||^2, 1] at any h."""
    for seed, size in enumerate(SIZES):
        each = field(randn(3, 2, 3, 3, seed=seed), activation, size)
        limit = 2 / each.lipschitz()
        for h, x in ((limit, randn(2, *size, seed=3)), (3 * limit, 5 * randn(2, *size, seed=4))):
            J = jacobian(lambda y, h=h, each=each: Euler().step(each, 0.0, h)(y), x)
            spectrum = torch.linalg.eigvals(J)
            assert float(spectrum.imag.abs().max()) <= 1e-8 and float((J - J.T).abs().max()) <= 1e-12
            low, high = float(spectrum.real.min()), float(spectrum.real.max())
            assert 1 - h * each.lipschitz() - 1e-9 <= low and high <= 1 + 1e-9
            assert norm2(J) <= Euler().step(each, 0.0, h).lipschitz() * (1 + 1e-9)
        assert Euler().step(each, 0.0, limit).lipschitz() == 1.0
        assert Euler().step(each, 0.0, 3 * limit).lipschitz() == pytest.approx(5)


def test_beyond_the_limit_a_step_is_not_nonexpansive_where_the_norm_is_attained() -> None:
    """The limit is sharp: with every unit active, 1.05 times the certified h stretches by 1.1."""
    kernel = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, 1] = randn(2, 2)
    each = ConvGradientField(Convolution(kernel), torch.full((2,), 1e3).double(), named_activation("relu"), (4, 4))
    x = randn(2, 4, 4, seed=5)
    for factor, expected in ((1.0, 1.0), (1.05, 1.1), (1.5, 2.0)):
        h = factor * 2 / each.lipschitz()
        assert norm2(jacobian(lambda y, h=h, each=each: Euler().step(each, 0.0, h)(y), x)) == pytest.approx(
            expected, rel=1e-8
        )
        assert Euler().step(each, 0.0, h).lipschitz() == pytest.approx(expected, rel=1e-8)


def test_beyond_the_limit_a_step_is_not_nonexpansive_for_any_kernel_whose_norm_is_known() -> None:
    for seed, size in enumerate(SIZES):
        W = Convolution(randn(3, 2, 3, 3, seed=seed))
        each = ConvGradientField(W, torch.full((3,), 1e3).double(), named_activation("relu"), size)
        h = 1.05 * 2 / norm2(dense(W, *size)) ** 2
        J = jacobian(lambda y, h=h, each=each: Euler().step(each, 0.0, h)(y), randn(2, *size, seed=6))
        assert norm2(J) == pytest.approx(1.1, rel=1e-8)


@pytest.mark.parametrize("name", HALVINGS)
def test_changes_of_stage_are_nonexpansive(name: str) -> None:
    halving, factor = HALVINGS[name]
    J = jacobian(halving, randn(3, 4, 6))
    identity = torch.eye(len(J), dtype=J.dtype)
    torch.testing.assert_close(J @ J.T, identity)  # of norm 1, and of full rank: no output is lost
    x, y = randn(200, 3, 4, 6, seed=1), randn(200, 3, 4, 6, seed=2)
    stretch = (halving(x) - halving(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(stretch.max()) <= 1 + 1e-12
    if name == "space_to_depth":
        torch.testing.assert_close(stretch, torch.ones_like(stretch))
    change = StageChange(halving, random_orthonormal(6, 3 * factor).double())
    assert change(x).shape == (200, 6, 2, 3)
    assert norm2(jacobian(change, randn(3, 4, 6))) <= change.lipschitz() <= 1


def flow(**options: Any) -> ConvGradientFlow:
    torch.manual_seed(options.pop("seed", 0))
    adaptive = options.pop("substeps", 1)
    return ConvGradientFlow(2, 4, Euler(adaptive), **({"stages": 2} | options))


FLOWS: dict[str, dict[str, Any]] = {
    "default": {}, "mean": {"change": "mean_pool", "pool": "mean"}, "max": {"change": "max_pool", "activation": "tanh"},
    "wide": {"expansion": 2, "growth": 3, "layers": [1, 3]}, "sigmoid": {"activation": "sigmoid", "step": 0.3},
    "two substeps": {"substeps": 2}, "auto": {"substeps": "auto"}, "one stage": {"stages": 1, "pool": "mean"},
}  # fmt: skip


@pytest.mark.parametrize("grown", [1.0, 1.3, 3.0])
@pytest.mark.parametrize("name", FLOWS)
def test_the_certificate_bounds_the_jacobian_of_the_whole_flow(name: str, grown: float) -> None:
    """Also where nobody projects and the certificate is above 1, as it then must be."""
    phi = flow(**FLOWS[name]).double()
    phi.build((2, 4, 6))
    with torch.no_grad():
        for kernels, biases in zip(phi.K, phi.b, strict=True):
            kernels.mul_(grown)
            biases.add_(1.0)  # most units are active: layers are near what they can do
    bound = phi.certificate()["flow_discrete"]
    found = max(norm2(jacobian(phi, scale * randn(2, 4, 6, seed=s))) for s, scale in enumerate((0.1, 0.5, 2.0)))
    assert found <= bound * (1 + 1e-9)
    if grown == 1.0:
        assert bound <= ROUNDING
    elif grown == 3.0 and name in ("default", "wide"):
        assert found > 1  # what projecting is for
    phi.project_()
    assert phi.certificate()["flow_discrete"] <= ROUNDING  # of V, which float64 makes orthonormal to more digits
    assert norm2(jacobian(phi, randn(2, 4, 6))) <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_weights_in_float32_never_leave_the_constraint(seed: int) -> None:
    """After any update the next projection restores it, in the arithmetic of training; a second one changes nothing."""
    phi = flow(seed=seed, layers=[2, 2], expansion=1 + seed % 2, activation=list(ACTIVATIONS)[seed % 5])
    phi.build((2, 6, 4))
    assert phi.certificate()["flow_discrete"] <= 1
    for scale in (0.01, 1.0, 30.0):
        with torch.no_grad():
            for parameter in phi.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
        phi.project_()
        assert all(ode <= 1 and discrete <= 1 for ode, discrete in phi.step_bounds())
        assert all(each.lipschitz() <= phi.limit / float(phi.h) * phi.activation.slope_bound for each in phi.bind()[0])
        before = [parameter.clone() for parameter in phi.parameters()]
        phi.project_()
        assert all(torch.equal(a, b) for a, b in zip(before, phi.parameters(), strict=True))


def test_with_substeps_auto_weights_are_free_and_layers_as_many_steps_as_they_need() -> None:
    phi = flow(substeps="auto")
    phi.build((2, 4, 6))
    with torch.no_grad():
        for factor, kernel in zip((0.5, 1.5, 3.0, 100.0), [*phi.K[0], *phi.K[1]], strict=True):
            kernel.mul_(factor)
    before = [kernel.clone() for kernel in [*phi.K[0], *phi.K[1]]]
    phi.project_()
    after = [*phi.K[0], *phi.K[1]]
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))
    assert not torch.equal(before[3], after[3])  # beyond the most substeps weights shrink after all
    assert phi.substeps.tolist()[3] == MAX_SUBSTEPS == phi.properties()["substeps_max"]
    for kernel, size, substeps in zip(after, [(4, 6)] * 2 + [(2, 3)] * 2, phi.substeps.tolist(), strict=True):
        needed = conv_norm(kernel, *size) ** 2 / phi.limit
        assert needed <= substeps < needed * (1 + 2 * PROOF) + 1
    assert phi.certificate()["flow_discrete"] <= 1
