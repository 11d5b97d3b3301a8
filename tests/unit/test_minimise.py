"""Many functions are minimised at once, each as if it were alone."""

import torch
from torch import Tensor

from robode.linalg.minimise import minimise


def test_functions_are_minimised_together_as_one_by_one():
    """Quadratics of very different condition."""
    scales = torch.tensor([[1.0, 1.0], [1.0, 1e3], [1e-3, 1.0]], dtype=torch.float64)
    centres = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.1]], dtype=torch.float64)
    calls = []

    def function(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(which.tolist())
        away = x - centres[which]
        return 1 + 0.5 * (scales[which] * away.square()).sum(1), scales[which] * away

    x = minimise(function, torch.zeros(3, 2, dtype=torch.float64), 60, tolerance=1e-14)
    assert float((scales * (x - centres).square()).amax()) <= 1e-10
    assert [0, 1, 2] in calls and len(calls[-1]) < 3  # the ones that are done are left alone
    for i in range(3):
        one = torch.tensor([i])
        alone = minimise(lambda x, _, i=one: function(x, i), torch.zeros(1, 2, dtype=torch.float64), 60, 1e-14)
        assert torch.equal(alone[0], x[i])


def test_a_function_that_is_infinite_beyond_a_point_is_approached_from_inside():
    """-log(1 - x) + x^2 from 0: the first step would leave the domain."""

    def function(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        inside = x < 1
        barrier = torch.where(inside, -(1 - x).log(), torch.inf)
        return (barrier - 40 * x)[:, 0], 1 / (1 - x) - 40

    x = minimise(function, torch.zeros(2, 1, dtype=torch.float64), 80, tolerance=1e-14)
    assert float((x - (1 - 1 / 40)).abs().max()) <= 1e-6


def test_a_search_ends_when_it_is_told():
    seen = []

    def function(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(which))
        return 0.5 * x.square().sum(1), x

    start = torch.ones(2, 1, dtype=torch.float64)
    minimise(function, start, 50, finished=lambda: torch.tensor([True, False]))
    assert seen[0] == 2 and set(seen[1:]) == {1} and float(start.min()) == 1.0  # the caller's x is not touched
