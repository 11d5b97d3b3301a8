"""Every model YAML with each integrator it lists, as small networks for images and for vectors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from robode.data.facts import DataFacts
from robode.network import Network, build_network
from robode.tasks.classification import Classification

CONF = Path(__file__).parents[2] / "conf"
FACTS = {
    "image": DataFacts((2, 3, 4), (0.4, 0.5), (0.2, 0.3), (0.0, 1.0), Classification(tuple("abcde"))),
    "vector": DataFacts((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(tuple("abc"))),
}


def load(group: str, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    node.pop("defaults", None)
    return {str(k): v for k, v in node.items()}


def ends_of(model: str) -> dict[str, dict[str, Any]]:
    """The encoder and the head that the YAML of a model chooses."""
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{model}.yaml")).get("defaults", [])
    chosen = {"encoder": "auto", "head": "linear"}
    for entry in defaults:
        for key, name in entry.items():
            group = key.split("/")[-1].split("@")[0]
            chosen |= {group: name} if group in chosen else {}
    return {group: load(group, name) for group, name in chosen.items()}


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
INTEGRATORS = sorted(path.stem for path in (CONF / "integrator").glob("*.yaml"))
PAIRS = [(m, i) for m in MODELS for i in load("model", m)["integrators"]]
OTHER_PAIRS = [(m, i) for m in MODELS for i in INTEGRATORS if i not in load("model", m)["integrators"]]
# symplectic Euler needs a separable Hamiltonian; with relu's kinks rounding decides which steps dopri5 accepts
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("chnode_dense", "dopri5"): {"activation": "tanh"},
    ("hdnn", "symplectic_euler"): {"separable": True},
    ("gradient_flow_conv", "euler"): {"stages": 1},  # three pixels have no half
}
IMAGES_ONLY = ("gradient_flow_conv",)


def kind_of(model: str) -> str:
    return "image" if model in IMAGES_ONLY else "vector"


def make(model: str, integrator: str, kind: str | None = None, *, depth: int = 3, step: Any = "auto",
         horizon: Any = None, seed: int = 0, **options: Any) -> Network:  # fmt: skip
    torch.manual_seed(seed)
    node = load("model", model) | NEEDS.get((model, integrator), {}) | {"width": 4} | options
    method = load("integrator", integrator)
    cfg = SimpleNamespace(
        model=node, integrator=method, depth=depth, step=step, horizon=horizon, **ends_of(model)
    )
    return build_network(cfg, FACTS[kind or kind_of(model)])


def batch(kind: str, size: int = 6) -> Tensor:
    return torch.rand(size, *FACTS[kind].shape, generator=torch.Generator().manual_seed(3))
