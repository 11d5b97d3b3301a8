"""dopri5 stops with a sentence where torchdiffeq would go on for ever, fill the memory or fail an assertion."""

from __future__ import annotations

import pytest
import torch

from robode.errors import JobFailed
from robode.families.node import Node
from robode.integrators import adaptive
from robode.integrators.adaptive import Dopri5


def diverged(scale: float) -> Node:
    torch.manual_seed(0)
    flow = Node(2, 2, Dopri5(), step=0.5, hidden=[8])
    with torch.no_grad():
        for p in flow.parameters():
            p.mul_(scale)
    return flow


@pytest.mark.parametrize(
    ("scale", "reason"), [(1e4, "over 40 steps"), (1e20, "no step is short enough"), (torch.nan, "not finite")]
)
def test_a_field_that_cannot_be_solved_is_a_failed_job(
    scale: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "MAX_STEPS", 40)
    y = torch.randn(20, 2) if scale == scale else torch.full((20, 2), torch.nan)
    with pytest.raises(JobFailed, match=rf"integrator=dopri5: .*{reason}.*try a smaller lr") as failure:
        diverged(scale if scale == scale else 1.0)(y)
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 300


def test_gradients_stop_before_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, y = diverged(100.0), torch.randn(20, 2)
    monkeypatch.setattr(adaptive, "machine_memory", lambda: 2_000_000)
    with torch.no_grad():
        flow(y)  # keeps nothing
    with pytest.raises(JobFailed, match="need over .* GB for their gradients"):
        flow(y)
    diverged(1.0)(y).sum().backward()


def test_the_estimate_is_what_an_evaluation_computes() -> None:
    """8 hidden units and 20 states of 2 numbers: 160 numbers each for K y + b and tanh, 40 each behind."""
    (field, _), y, memory = diverged(1.0).fields(), torch.randn(2, 20), adaptive.Memory()
    memory.charged(lambda: 2.0 * field(0.0, y))
    assert memory.each == 4 * (160 + 160 + 40 + 40)


def test_nothing_is_certified_of_the_steps() -> None:
    assert diverged(1.0).certificate()["flow_discrete"] == torch.inf
