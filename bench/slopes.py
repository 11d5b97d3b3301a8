"""What certificates of sigma(A y + b) cost, on one thread in CPU seconds: the bounds of delta(A), branch and bound,
projections. A is Gaussian, A_ij ~ N(0, 1/d), slopes in [alpha, 1], and projections halve delta."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch
from measure import Row, in_turns
from torch import Tensor

from robode.ode.jacobians import JacobianSet, scaled_rows
from robode.ode.lognorm_exact import Maximum, maximum
from robode.ode.lognorm_lower import SAMPLES, lower_bound
from robode.ode.lognorm_upper import density, norm_bound, scalar_bound, upper_bound
from robode.ode.projection import Stabilised, stabilise

T = TypeVar("T")
ALPHAS, LIMIT, STEPS = (0.1, 0.5), 120.0, 10
STRUCTURED: dict[str, Callable[[Tensor], Tensor]] = {
    "Gaussian": lambda A: A,
    "skew": lambda A: A - A.T,
    "negative definite": lambda A: -A @ A.T,
    "orthogonal": lambda A: torch.linalg.qr(A).Q,
}


def slopes(turns: int) -> list[Row]:
    """All rows; turns: seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for alpha in ALPHAS for row in [*bounds(64, alpha, turns), *projections(alpha, turns)]]
        return [*rows, together(16, 8, turns), *(structured(10, kind) for kind in STRUCTURED)]
    finally:
        torch.set_num_threads(threads)


def gaussian(d: int, seed: int) -> Tensor:
    """(d, d), float64."""
    return torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / d**0.5


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds of one call, and what it gave."""
    start = time.process_time()
    found = action()
    return time.process_time() - start, found


def bounds(d: int, alpha: float, turns: int) -> list[Row]:
    """UB2, the lower bound and branch and bound, each for `turns` matrices."""
    sets = [scaled_rows(gaussian(d, seed), alpha) for seed in range(turns)]
    upper = [timed(lambda J=J: upper_bound(J)) for J in sets]
    lower = [timed(lambda J=J, u=u: below(J, u.theta)) for J, (_, u) in zip(sets, upper, strict=True)]
    exact: list[tuple[float, Maximum]] = [timed(lambda J=J: maximum(J, LIMIT)) for J in sets]
    best = [found.upper for _, found in exact]

    def above(values: list[float]) -> str:
        excess = [value / most - 1 for value, most in zip(values, best, strict=True)]
        return f"{min(excess):.2%} to {max(excess):.2%} above branch and bound"

    looser = {"UB1": [float(scalar_bound(J).value) for J in sets], "UB0": [float(norm_bound(J)) for J in sets]}
    notes = {"UB2": above([float(u.value) for _, u in upper])} | {name: above(each) for name, each in looser.items()}
    what = f"d={d}, alpha={alpha}"
    closed = f"{sum(found.closed for _, found in exact)} of {turns}, nodes {[found.nodes for _, found in exact]}"
    missed = max(found.lower - value for (_, value), (_, found) in zip(lower, exact, strict=True))
    return [
        Row(f"UB2, {what}", "matrix", [t for t, _ in upper], target="< 1 s", notes=notes),
        Row(f"lower bound, {what}", "matrix", [t for t, _ in lower], notes={"most missed": f"{missed:.1e}"}),
        Row(f"branch and bound, {what}", "matrix", [t for t, _ in exact], notes={"closed": closed}),
    ]


def below(J: JacobianSet, theta: Tensor) -> float:
    """Alternation and changes of one slope, from samples of the upper bound's density too."""
    return lower_bound(J, density(J, theta).samples(SAMPLES))[0].value


def projections(alpha: float, turns: int) -> list[Row]:
    """Cold at widths 64 and 200, in float32; warm steps at 64 after small changes; the least change at 16."""
    rows = [cold(64, alpha, turns), warm(64, alpha), cold(200, alpha, 1)]
    least = []
    for seed in range(turns):
        A = gaussian(16, seed).float()
        target = 0.5 * maximum(scaled_rows(A, alpha)).lower
        lmi, cuts = (stabilise(A, target, alpha, method) for method in ("lmi", "cuts"))
        least.append(lmi.distance / cuts.least)
    rows[0].notes["change over the least, d=16"] = f"{min(least):.3f} to {max(least):.3f}"
    return rows


def cold(d: int, alpha: float, turns: int) -> Row:
    """From nothing known."""
    times, notes = [], {}
    for seed in range(turns):
        A = gaussian(d, seed).float()
        target = 0.5 * float(upper_bound(scaled_rows(A, alpha)).value)
        seconds, found = timed(lambda A=A, target=target: stabilise(A, target, alpha))
        times.append(seconds)
        scaling = stabilise(A, target, alpha, "scaling").distance
        notes[f"seed {seed}"] = (
            f"bound - target {found.bound - target:.1e}, change {found.distance:.3f}, by scaling {scaling:.3f}"
        )
    return Row(f"projection, d={d}, alpha={alpha}", "matrix", times, target="< 60 s" if d == 200 else "", notes=notes)


def warm(d: int, alpha: float) -> Row:
    """One after the other, after steps of 1 % of the norm in random directions that raise delta."""
    A = gaussian(d, 0).float()
    target = 0.5 * float(upper_bound(scaled_rows(A, alpha)).value)
    found: Stabilised = stabilise(A, target, alpha)
    times, changes = [], []
    for step in range(STEPS):
        eye = torch.eye(d) * 0.005
        moved = found.W + 0.01 * gaussian(d, 100 + step).float() + eye
        seconds, found = timed(lambda W=moved, last=found: stabilise(W, target, alpha, warm=last.certificate))
        times.append(seconds)
        changes.append(found.distance)
    notes = {"change": f"median {median(changes):.4f}, the step {0.01 * d**0.5:.2f}"}
    return Row(f"warm projection, d={d}, alpha={alpha}", "step", times, target="< 0.3 s", notes=notes)


def together(d: int, layers: int, turns: int) -> Row:
    """UB2 of the layers of a network as one stack, against one by one (wall time, in turns)."""
    J = scaled_rows(torch.stack([gaussian(d, seed) for seed in range(layers)]), 0.1)
    ours, other = in_turns(
        lambda: upper_bound(J), lambda: [upper_bound(J[j : j + 1]) for j in range(layers)], 3 * turns
    )
    return Row(f"UB2 of {layers} layers, d={d}, together and one by one", "stack", ours, other)


def structured(d: int, kind: str) -> Row:
    """What each method costs in length on structured weights."""
    times, notes = [], {}
    for alpha in ALPHAS:
        A = STRUCTURED[kind](gaussian(d, 0))
        most, J = maximum(scaled_rows(A, alpha)), scaled_rows(A, alpha)
        seconds, lmi = timed(lambda A=A, t=0.5 * most.lower, alpha=alpha: stabilise(A, t, alpha))
        cuts, flow = (stabilise(A, 0.5 * most.lower, alpha, method) for method in ("cuts", "two_level"))
        times.append(seconds)
        over = [each.distance / cuts.least for each in (lmi, cuts, flow)]
        notes[f"alpha={alpha}"] = (
            f"UB2 {float(upper_bound(J).value) / most.upper - 1:.2%} above branch and bound; change over the least: "
            f"lmi {over[0]:.3f}, cuts {over[1]:.5f}, two_level {over[2]:.3f}"
        )
    return Row(f"projection, d={d}, {kind}", "matrix", times, notes=notes)
