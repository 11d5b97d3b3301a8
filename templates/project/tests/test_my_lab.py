"""What must hold: robode's contracts, and what is special about this family and these data."""

from pathlib import Path

import pytest
import torch
from my_lab.data import Rings
from my_lab.family import Damped

from robode.cli.main import main
from robode.integrators.euler import Euler


def test_the_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])  # where conf/ lies
    monkeypatch.setenv("ROBODE_TRUST", "my_lab")
    assert main(["check", "my_lab"]) == 0


def test_without_weights_states_shrink_by_the_rate() -> None:
    flow = Damped(4, 3, Euler(), 0.1, rate=2.0)
    torch.nn.init.zeros_(flow.K)
    torch.nn.init.zeros_(flow.b)
    y = torch.randn(5, 4)  # a state a row
    torch.testing.assert_close(flow(y), (1 - 0.1 * 2.0) ** 3 * y)


def test_a_radius_tells_the_rings_apart() -> None:
    for samples in Rings(n=100, spread=0.0).load():
        assert torch.equal(samples.x.norm(dim=1).round().long() - 1, samples.target)
