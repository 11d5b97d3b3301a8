"""Every model YAML with each integrator it lists, as small networks for images and for vectors."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from robode.config.config import Choice
from robode.config.parse import choice
from robode.contracts.families import KINDS, Family
from robode.network import Network

CONF = Path(__file__).parents[2] / "conf"


@functools.cache
def _read(group: str, name: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    return {str(k): v for k, v in node.items()}


def load(group: str, name: str) -> dict[str, Any]:
    node = copy.deepcopy(_read(group, name))
    node.pop("defaults", None)
    return node


def encoder_and_head(model: str) -> tuple[Choice, Choice]:
    """Those that the YAML of a model chooses."""
    defaults = _read("model", model).get("defaults", [])
    chosen = {"encoder": "auto", "head": "linear"}
    for entry in defaults:
        for key, name in entry.items():
            group = key.split("/")[-1].split("@")[0]
            chosen |= {group: name} if group in chosen else {}
    encoder, head = (choice(load(group, chosen[group]), group) for group in ("encoder", "head"))
    return encoder, head


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
INTEGRATORS = sorted(path.stem for path in (CONF / "integrator").glob("*.yaml"))
PAIRS = [(m, i) for m in MODELS for i in load("model", m)["integrators"]]
OTHER_PAIRS = [(m, i) for m in MODELS for i in INTEGRATORS if i not in load("model", m)["integrators"]]
# symplectic Euler needs a separable Hamiltonian, and three pixels have no half
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("hdnn", "symplectic_euler"): {"separable": True},
    ("gradient_flow_conv", "euler"): {"stages": 1},
}
IMAGES_ONLY = ("gradient_flow_conv", "conv_stable_node")


def kind_of(model: str) -> str:
    return "images" if model in IMAGES_ONLY else "vectors"


def family(model: str, integrator: str, kind: str | None = None) -> Family:
    node = load("model", model) | NEEDS.get((model, integrator), {}) | {"width": 4}
    parts = choice(node, "model"), choice(load("integrator", integrator), "integrator"), *encoder_and_head(model)
    return Family(*parts, KINDS[kind or kind_of(model)])


def make(model: str, integrator: str, kind: str | None = None, **options: Any) -> Network:
    """options: of `Family.network`."""
    return family(model, integrator, kind).network(**options)


def batch(kind: str, size: int = 6) -> Tensor:
    return family("resnet", "euler", kind).samples(size)
