"""What suites say of log-norms: both bounds hold, and the interval of slopes is the largest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import make

from robode.errors import BadInput
from robode.network import Network
from robode.ode.field import OneLayerField
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_exact import maximum
from robode.quantities.log_norms import FILE, LogNorms, StableSlopes


class Data:
    """What the quantities need to know of a data set."""

    def __init__(self, network: Network) -> None:
        self.info = network.info


def measured(quantity: LogNorms | StableSlopes, network: Network, folder: Path) -> dict[str, float]:
    data: Any = Data(network)
    return {str(line["quantity"]): float(line["value"]) for line in quantity.measure(network, data, folder)}


@pytest.mark.parametrize("model", ["stable_node", "resnet", "chnode", "hdnn"])
@pytest.mark.parametrize("width", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_delta_lies_between_its_bounds(model: str, width: int, tmp_path: Path) -> None:
    network = make(model, "euler", width=width)
    found = measured(LogNorms(), network, tmp_path)
    assert found["delta_lower"] <= found["delta_upper"] + 1e-9
    exact = [maximum(field.jacobians()).upper for field in set(network.flow.exact().fields())]
    assert found["delta_lower"] <= max(exact) + 1e-7 and max(exact) <= found["delta_upper"] + 1e-7
    assert found["delta_upper"] <= max(exact) + 0.1 * (1 + abs(max(exact)))
    assert all(f.lognorm() <= found["delta_upper"] + 0.01 * (1 + f.lipschitz()) for f in network.flow.exact().fields())


def test_a_stretching_encoder_and_head_are_said(tmp_path: Path) -> None:
    found = measured(LogNorms(), make("stable_node", "euler"), tmp_path)
    assert 0 < found["encoder_norm"] < math.inf and 0 < found["head_norm"] < math.inf


@pytest.mark.slow
def test_the_interval_of_slopes_is_stable_and_the_largest(tmp_path: Path) -> None:
    network = make("stable_node", "euler", width=6, alpha=0.3, delta=-0.05)
    alpha = measured(StableSlopes(), network, tmp_path)["slopes_from"]
    field = network.flow.exact().fields()[0]
    assert isinstance(field, OneLayerField) and 0 < alpha <= 0.3  # trained for slopes from 0.3 on, with a margin
    assert maximum(scaled_rows(field.K, alpha)).upper <= 1e-9
    assert maximum(scaled_rows(field.K, alpha - 0.03)).lower > 0
    arrays = np.load(tmp_path / FILE)
    assert (arrays["lower"] <= arrays["upper"] + 1e-12).all() and (np.diff(arrays["upper"]) <= 1e-9).all()
    for place in (2, 10, 20):
        exact = maximum(scaled_rows(field.K, float(arrays["alpha"][place])))
        assert arrays["lower"][place] <= exact.upper + 1e-9 and exact.lower <= arrays["upper"][place] + 1e-9


def test_weights_whose_linear_flow_expands_have_no_interval(tmp_path: Path) -> None:
    network = make("stable_node", "euler", width=6, stabilise="none")
    A = network.flow.exact().fields()[0].K.detach()  # type: ignore[attr-defined]
    assert float(torch.linalg.eigvalsh(0.5 * (A + A.T)).max()) > 0
    assert measured(StableSlopes(), network, tmp_path)["slopes_from"] == math.inf


@pytest.mark.parametrize("quantity", [LogNorms(), StableSlopes()])
def test_fields_of_another_form_are_refused(quantity: LogNorms | StableSlopes, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"suite={quantity.name}: expected fields with one hidden layer"):
        measured(quantity, make("node", "euler"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_gradient_fields_have_no_interval_of_slopes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="suite=stable_slopes: expected fields sigma"):
        measured(StableSlopes(), make("chnode", "etd"), tmp_path)
