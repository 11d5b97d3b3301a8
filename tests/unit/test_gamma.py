"""The gamma rules, their numerics, and what project_ and measuring may change."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robode.errors import BadInput, JobFailed
from robode.families.chnode import CHNode
from robode.families.gamma import contraction, gamma_of, one_minus_alpha_squared
from robode.families.hdnn import HDNN
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.integrator import Integrator
from robode.integrators.runge_kutta import RK4
from robode.ode import bounds
from robode.ode.flow import Flow
from robode.ode.sensitivity import bsm_norms
from robode.training.callbacks import useless


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(-6, 3), st.floats(0, 12), st.floats(0.01, 0.99))
def test_gamma_exceeds_gamma_min_at_every_ratio_of_c2_to_c1(log_c1: float, log_ratio: float, eta: float) -> None:
    c1, c2 = 10**log_c1, 10 ** (log_c1 + log_ratio)
    gamma = float(gamma_of("theorem1", c1, c2, 1.7, eta))
    facts = contraction(c1, c2, gamma, 1.7)
    assert math.isfinite(gamma) and gamma > bounds.gamma_min(c1, c2, 1.7)
    assert facts["epsilon"] == pytest.approx(eta * float(one_minus_alpha_squared(c1, c2)), rel=1e-6)
    assert facts["rho"] > 0 and bounds.lognorm(c1, c2, gamma, 1.7) <= -facts["rho"] / 2 * (1 - 1e-9)
    assert bounds.h_star(c1, c2, gamma, 1.7) > 0


def test_one_minus_alpha_squared_keeps_ten_digits_where_the_difference_has_none() -> None:
    c1, c2 = 4e-4, 4e8
    a, b = Fraction(c1), Fraction(c2)
    exact = 1 - ((b - a) / (b + a)) ** 2
    assert abs(Fraction(float(one_minus_alpha_squared(c1, c2))) / exact - 1) < Fraction(1, 10**10)
    naive = 1 - ((c2 - c1) / (c2 + c1)) ** 2
    assert abs(Fraction(naive) / exact - 1) > Fraction(1, 10**5)


@pytest.mark.parametrize("norm_squared", [1e2, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("rule", ["theorem1", "differentiable"])
def test_large_weights_keep_a_solution(norm_squared: float, rule: str) -> None:
    flow = CHNode(4, 2, ETD(), kappa=4e-4, gamma=rule)
    with torch.no_grad():
        flow.K.mul_(math.sqrt(norm_squared) / float(torch.linalg.svdvals(flow.K)[:, 0].max()))
    flow.project_()
    properties = flow.properties()
    assert all(math.isfinite(v) for v in properties.values())
    assert properties["epsilon"] > 0 and properties["rho"] > 0
    assert flow.certificate()["flow_discrete"] <= 1


def test_the_scripts_fixed_epsilon_fails_past_1600() -> None:
    """kappa = 4e-4 and epsilon = 1e-6: 1 - alpha^2 = 4 c1 c2/(c1+c2)^2 crosses epsilon at ||K||^2 = 1600."""
    kappa = 4e-4
    assert gamma_of("script_mnist", kappa, kappa + 1590, 1.0, 0.1) > 1e3
    with pytest.raises(JobFailed, match="script_mnist"):
        gamma_of("script_mnist", kappa, kappa + 1610, 1.0, 0.1)
    flow = CHNode(4, 1, ETD(), kappa=kappa, gamma="script_mnist", step=0.5)
    with torch.no_grad():
        flow.K.mul_(45 / float(torch.linalg.svdvals(flow.K).max()))
    flow.project_()
    assert "script_mnist: no solution" in str(flow.defect())


def test_the_scripts_rules_are_the_printed_ones() -> None:
    c1, c2 = 0.04, 1.04
    alpha_squared = ((c2 - c1) / (c2 + c1)) ** 2
    expected = 1 / math.sqrt(1 - alpha_squared - 1e-6)
    assert gamma_of("script_mnist", c1, c2, 1.0, 0.1) == pytest.approx(expected, rel=1e-9)
    expected = math.sqrt((alpha_squared - 1e-9) / (1 - alpha_squared - 1e-9))
    assert gamma_of("script_2d", c1, c2, 1.0, 0.1) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(JobFailed, match="script_2d"):
        gamma_of("script_2d", 1.0, 1.0, 1.0, 0.1)


def test_published_start_at_gamma_zero() -> None:
    flow = CHNode(4, 2, ETD(), gamma="script_mnist", gamma_start="zero", step=0.5)
    assert float(flow.gamma) == 0 and not flow.project_at_start
    flow.project_()
    assert float(flow.gamma) > 0


@pytest.mark.parametrize("rule", ["theorem1", "differentiable", "script_mnist", "factor"])
@pytest.mark.parametrize("integrator", [ETD(), Euler(), IMEX()])
def test_projection_is_idempotent_and_depends_on_the_weights_alone(rule: str, integrator: ETD) -> None:
    flow = CHNode(4, 3, integrator, gamma=rule, factor=1.3 if rule == "factor" else None, trainable_L=True)
    with torch.no_grad():
        flow.K.add_(0.7)
    flow.project_()
    before = copy.deepcopy(flow.state_dict())
    flow.project_()
    with torch.no_grad():
        flow.gamma.fill_(123.0)
    flow.project_()
    assert_same(flow.state_dict(), before)


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


def test_the_state_dict_carries_gamma_h_c_and_kappa_bit_by_bit() -> None:
    torch.manual_seed(1)
    flow = CHNode(4, 2, ETD())
    with torch.no_grad():
        flow.K.mul_(1.3)
    flow.project_()
    torch.manual_seed(2)
    other = CHNode(4, 2, ETD())
    other.load_state_dict(flow.state_dict())
    assert {"gamma", "h", "c", "kappa"} <= flow.state_dict().keys()
    assert_same(other.state_dict(), flow.state_dict())
    assert flow.gamma.dtype == torch.float64
    y = torch.randn(5, 4)
    assert torch.equal(flow(y), other(y)) and other.certificate() == flow.certificate()


@pytest.mark.parametrize("rule", ["theorem1", "differentiable"])
def test_measuring_changes_nothing(rule: str) -> None:
    flow = CHNode(4, 2, ETD(), gamma=rule)
    with torch.no_grad():
        flow.K.mul_(2)  # stale gamma: a measurement that projected would show
    before, y = copy.deepcopy(flow.state_dict()), torch.randn(6, 4)
    generator = torch.get_rng_state()
    measure(flow, y)
    assert_same(flow.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in flow.parameters())


def measure(flow: Flow, y: torch.Tensor) -> None:
    flow.properties()
    flow.certificate()
    flow.certificate_table()
    flow.step_bounds()
    flow.states(y)
    bsm_norms(flow, y)


def test_properties_describe_the_flow_that_runs() -> None:
    """With gamma=differentiable the forward pass uses the gamma of the current weights; so must what is logged."""
    flow = CHNode(4, 2, ETD(), gamma="differentiable")
    with torch.no_grad():
        flow.K.mul_(3)
    fields, h = flow.exact().bind()
    properties = flow.properties()
    assert properties["gamma"] == pytest.approx(float(fields[0].gamma), rel=1e-12)
    assert properties["h"] == pytest.approx(float(h), rel=1e-12)


def test_gradients_pass_through_gamma_only_where_it_is_differentiable() -> None:
    y, gradients = torch.randn(8, 4), []
    for rule in ("theorem1", "differentiable"):
        torch.manual_seed(3)
        flow = CHNode(4, 2, ETD(), gamma=rule).double()
        flow(y.double()).square().sum().backward()
        assert flow.K.grad is not None and bool(flow.K.grad.isfinite().all())
        gradients.append(flow.K.grad)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


@pytest.mark.parametrize("step", ["auto", 0.2])
@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Euler(), RK4(), Dopri5(1e-9, 1e-9)], ids=lambda i: i.name)
def test_differentiable_gradient_is_the_derivative_of_what_runs(integrator: Integrator, step: float | str) -> None:
    """With step=auto the step follows the weights too, so its derivative belongs to the gradient."""
    torch.manual_seed(3)
    flow = CHNode(2, 2, integrator, gamma="differentiable", step=step).double()
    y = torch.randn(3, 2, dtype=torch.float64)

    def output(K: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(flow, {"K": K}, (y,))

    assert torch.autograd.gradcheck(output, (flow.K.detach().clone().requires_grad_(),), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("kappa", [0, -1.0, math.nan, math.inf, "much"])
def test_kappa_must_be_positive_and_finite(kappa: float | str) -> None:
    with pytest.raises(BadInput, match="kappa"):
        CHNode(4, 1, ETD(), kappa=kappa)


@pytest.mark.parametrize("options", [{"gamma": "magic"}, {"eta": 0.0}, {"eta": 1.0}, {"gamma_start": "one"},
                                     {"gamma_start": "zero"}, {"activation": "gelu"}, {"gamma": "factor"},
                                     {"gamma": "factor", "factor": 0.9}, {"gamma": "factor", "factor": "auto"},
                                     {"factor": 2.0}, {"gamma": "factor", "factor": math.inf}])  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        CHNode(4, 1, ETD(), **options)


def test_zero_weights_at_the_start_are_one_line_not_a_traceback() -> None:
    """init_std=0 with kappa=auto gives kappa = 0, which Theorem 1 excludes."""
    with pytest.raises(BadInput):
        CHNode(4, 1, ETD(), init_std=0.0)
    assert CHNode(4, 1, ETD(), init_std=0.0, kappa=0.1).certificate()["flow_discrete"] < 1


BELOW_GAMMA_MIN = [{"J": "j2", "gamma": "script_mnist"}, {"gamma": "script_2d", "kappa": 40.0}]


@pytest.mark.parametrize("integrator", [Euler(), RK4()], ids=lambda i: i.name)
@pytest.mark.parametrize("options", BELOW_GAMMA_MIN)
def test_auto_step_never_freezes_the_flow(integrator: Integrator, options: dict[str, Any]) -> None:
    """The scripts' rules may stay below gamma_min; h* is 0 there, and a step of 0 would be a network without a flow."""
    torch.manual_seed(0)
    with pytest.raises(BadInput, match=f"step: .*integrator={integrator.name} and model.gamma={options['gamma']}"):
        CHNode(4, 1, integrator, **options)
    torch.manual_seed(0)
    assert CHNode(4, 1, integrator, **options, step=0.1).properties()["h_star"] == 0


@pytest.mark.parametrize("integrator", [ETD(), IMEX(), Dopri5(1e-9, 1e-9)], ids=lambda i: i.name)
@pytest.mark.parametrize("options", BELOW_GAMMA_MIN)
def test_auto_step_needs_no_h_star_where_the_integrator_sets_no_limit(
    integrator: Integrator, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    flow = CHNode(4, 1, integrator, **options)
    assert flow.properties()["h_star"] == 0
    assert flow.properties()["hcgamma_max"] == pytest.approx(1) and float(flow.h) > 0


@pytest.mark.parametrize("integrator", [Euler(), RK4()], ids=lambda i: i.name)
@pytest.mark.parametrize("options", [{}, {"gamma": "script_mnist"}, {"gamma": "script_mnist", "kappa": 40.0}])
def test_auto_step_stays_below_h_star(integrator: Integrator, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    flow = CHNode(4, 1, integrator, **options)
    assert 0 < float(flow.h) < flow.properties()["h_star"]


def test_weights_that_are_not_finite_fail_in_one_line() -> None:
    for flow in (CHNode(4, 1, ETD()), HDNN(4, 1, Euler())):
        with torch.no_grad():
            flow.K[0, 0, 0] = math.nan
        flow.project_()
        assert "the weights are not finite" in str(useless(flow))
        with pytest.raises(JobFailed, match="the weights are not finite"):
            flow.certificate()
