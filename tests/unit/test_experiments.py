"""What the experiments of the CH-NODE paper change with respect to each other, and the networks of their words."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from small_runs import build_each, composed

from robode.config.config import TrainConfig
from robode.data.info import DatasetInfo
from robode.network import build_network
from robode.tasks.classification import Classification

MNIST = DatasetInfo((1, 6, 6), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("0123456789")))


def flat(plain: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@cache
def experiment(name: str, *words: str) -> TrainConfig:
    return composed(f"experiment=chnode_2022/{name}", *words)


def changes(name: str, *words: str, model: str = "chnode") -> dict[str, Any]:
    """The keys in which it differs from table1, with its values."""
    configs = experiment("table1", f"model={model}"), experiment(name, f"model={model}", *words)
    one, two = (flat(config.plain()) for config in configs)
    return {key: two.get(key) for key in one | two if one.get(key) != two.get(key) and key != "experiment"}


@pytest.mark.parametrize(
    ("model", "more"),
    [("resnet", {"step": 1.0}), ("chnode", {"step": 0.1, "model.gamma": "theorem1", "model.gamma_start": "rule"})],
)
def test_the_text_differs_from_the_script_in_what_it_prints(model: str, more: dict[str, Any]) -> None:
    assert changes("table1_text", model=model) == more


def test_the_discrete_table_keeps_the_recipe_of_table_1() -> None:
    assert changes("table1_discrete", "integrator=euler") == {
        "model.kappa": "auto", "model.gamma": "theorem1", "model.gamma_start": "rule", "model.init_std": 0.5,
        "step": "auto",
    }  # fmt: skip


SQRT3 = {"model.gamma": "factor", "model.factor": 1.7320508}
SUBSTEPS = {"integrator.substeps": "auto", "step": 0.5, "model.norm_bound": 1}
ROWS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "etd": ((), {}),
    "euler, T = N h*": (("integrator=euler",), SQRT3),
    "euler, sub-stepped": (("integrator=euler",), SUBSTEPS | SQRT3),
    "euler, sub-stepped, kappa = 0.01": (
        ("integrator=euler",), SUBSTEPS | {"model.gamma": "script_mnist", "model.kappa": 0.01}
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_discrete_table_is_certified(row: str) -> None:
    words, values = ROWS[row]
    config = experiment("table1_discrete", "model=chnode", *words, *(f"{key}={value}" for key, value in values.items()))
    torch.manual_seed(0)
    flow = build_network(config, MNIST).flow
    assert flow.certificate()["flow_discrete"] <= 1
    if row.endswith("T = N h*"):
        assert flow.horizon == pytest.approx(flow.depth * flow.properties()["h_star"], rel=2e-3)
    if "kappa" not in row:  # J is active
        assert math.exp(-flow.properties()["hcgamma_max"]) > 0.3


def test_the_trade_off_is_a_certified_network_in_which_J_acts() -> None:
    config = experiment("tradeoff", "model.factor=2", "horizon=1")
    torch.manual_seed(0)
    flow = build_network(config, MNIST).flow
    p = flow.properties()
    assert p["gamma"] == pytest.approx(2 * p["gamma_min"], rel=1e-6) and flow.horizon == pytest.approx(1)
    assert flow.certificate()["flow_discrete"] <= 1 and math.exp(-p["hcgamma_max"]) > 0.3
    assert set(build_each(config.suite)) == {"clean", "gaussian", "salt_and_pepper", "certified"}
