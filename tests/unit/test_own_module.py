"""`module=PACKAGE:FACTORY` where the factory makes a network of robode's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from small_runs import composed

from robode.evaluation.target import subject

FACTORY = """
from robode.data.toy import SixPoints
from robode.families.chnode import CHNode
from robode.network import Network
from robode.integrators.one_step import ETD

def make():
    return Network(SixPoints().info, CHNode(2, 3, ETD()))
"""


def test_gamma_and_h_of_a_network_of_robode_stay_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_flow.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROBODE_TRUST", "their_flow")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    import their_flow

    made = their_flow.make()
    torch.save(made.state_dict(), "weights.pt")
    words = ("module=their_flow:make", "checkpoint=weights.pt", "data=six_points", "suite=clean")
    found = subject(composed(*words, verb="evaluate")).network
    assert found.flow.gamma.dtype == torch.float64
    assert torch.equal(found.flow.gamma, made.flow.gamma) and torch.equal(found.flow.h, made.flow.h)
    sys.modules.pop("their_flow", None)
