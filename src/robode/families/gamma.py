"""The gamma rules: how much damping makes the ODE contract (CH-NODE paper, Theorem 1).

All work on floats and on 0-d tensors with gradients. 1 - alpha^2 is computed as 4 c1 c2 / (c1 + c2)^2: the difference
loses every digit once c2/c1 passes 1e8.
"""

from __future__ import annotations

import math

from torch import Tensor

from robode.errors import BadInput, JobFailed
from robode.ode.bounds import Scalar, gamma_min, h_star, square, value

RULES = ("theorem1", "differentiable", "factor", "script_mnist", "script_2d")
SCRIPT_EPSILON = {"script_mnist": 1e-6, "script_2d": 1e-9}
FLOAT32_KAPPA = 1 + 1e-7  # layers hold kappa in float32; gamma_min of the rounded one is larger by up to 3e-8


def one_minus_alpha_squared(c1: Scalar, c2: Scalar) -> Scalar:
    """1 - alpha^2 with alpha = (c2 - c1)/(c2 + c1)."""
    return 4 * c1 * c2 / square(c1 + c2)


def gamma_of(rule: str, c1: Scalar, c2: Scalar, norm_J: float, eta: float, factor: float | None = None) -> Scalar:
    """gamma by the named rule.

    theorem1, differentiable: Eq. (11) with equality and epsilon = eta (1 - alpha^2), 0 < eta < 1.
    factor: `factor` times gamma_min, the smallest gamma of Theorem 1 (1e-7 above, for rounding).
    script_mnist, script_2d: what the published scripts compute, with their fixed epsilons; not Eq. (11). Where such a
    rule has no solution (its fixed epsilon exceeds 1 - alpha^2), a tensor becomes nan or inf, see `no_solution`, and
    numbers raise `JobFailed`.
    """
    room = one_minus_alpha_squared(c1, c2)
    if rule in ("theorem1", "differentiable"):
        q = (1 - eta) * room
        return norm_J * ((1 - q) / q) ** 0.5
    if rule == "factor":
        assert factor is not None
        return factor * gamma_min(c1, c2, norm_J) * FLOAT32_KAPPA
    epsilon = SCRIPT_EPSILON[rule]
    if not isinstance(room, Tensor) and (room <= epsilon or (rule == "script_2d" and room >= 1 - epsilon)):
        raise JobFailed(no_solution(rule, value(c1), value(c2)))
    numerator = 1.0 if rule == "script_mnist" else 1 - room - epsilon
    return (numerator / (room - epsilon)) ** 0.5


def no_solution(rule: str, c1: float, c2: float) -> str:
    """What to say where gamma is not finite."""
    if not (math.isfinite(c1) and math.isfinite(c2)):
        return "the weights are not finite: training diverged; try a smaller lr, step or horizon"
    why = f" (its epsilon is fixed at {SCRIPT_EPSILON[rule]:g})" if rule in SCRIPT_EPSILON else ""
    return f"model.gamma={rule}: no solution at c1={c1:.3g}, c2={c2:.3g}{why}; use model.gamma=theorem1 or a smaller lr"


def contraction(c1: float, c2: float, gamma: float, norm_J: float) -> dict[str, float]:
    """What Theorems 1 and 2 say for given c1, c2, gamma and ||J||, by name.

    epsilon solves Eq. (11) with equality for the given gamma; Theorem 1 does not apply where it is <= 0. rho: in
    ||BSM|| <= exp(-rho t / 2), Theorem 2.
    """
    rho_squared = value(square(gamma)) + norm_J**2
    alpha = (c2 - c1) / (c2 + c1) if c2 > 0 else 0.0
    epsilon = float(one_minus_alpha_squared(c1, c2)) - norm_J**2 / rho_squared if c2 > 0 else 0.0
    return {
        "c1": c1,
        "c2": c2,
        "gamma": gamma,
        "gamma_min": value(gamma_min(c1, c2, norm_J)),
        "alpha": alpha,
        "epsilon": epsilon,
        "rho": epsilon * (0.5 * (c1 + c2)) * rho_squared / gamma if gamma else 0.0,
        "h_star": value(h_star(c1, c2, gamma, norm_J)),
    }


def check_rule(rule: str, eta: float, factor: float | None = None) -> None:
    """Raises `BadInput` for an unknown rule, eta outside (0, 1), or a factor below 1, missing or without its rule."""
    if rule not in RULES:
        raise BadInput(f"model.gamma: expected one of {', '.join(RULES)}, got '{rule}'")
    number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if rule == "factor" and not (number and 1 <= factor < math.inf):  # type: ignore[operator]
        raise BadInput(f"model.factor: expected a number >= 1 with model.gamma=factor (euler: 1.732), got {factor}")
    if rule != "factor" and factor is not None:
        raise BadInput(f"model.factor: expected null unless model.gamma=factor, got {factor} with model.gamma={rule}")
    if not 0 < eta < 1:
        raise BadInput(f"model.eta: expected a number strictly between 0 and 1, got {eta}")
