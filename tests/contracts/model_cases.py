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
    """What a YAML file says, over what the files say that it begins with."""
    node = copy.deepcopy(_read(group, name))
    bases = [each for each in node.pop("defaults", []) if isinstance(each, str) and each != "_self_"]
    found: dict[str, Any] = {}
    for base in bases:
        found |= load(group, base)
    return found | node


def chosen_by(model: str) -> dict[str, str]:
    """The encoder and the head that the YAML of a model chooses."""
    chosen = {"encoder": "auto", "head": "linear"}
    for entry in _read("model", model).get("defaults", []):
        if isinstance(entry, str):
            chosen |= chosen_by(entry) if entry != "_self_" else {}
            continue
        for key, name in entry.items():
            group = key.split("/")[-1].split("@")[0]
            chosen |= {group: name} if group in chosen else {}
    return chosen


def encoder_and_head(model: str) -> tuple[Choice, Choice]:
    """Those that the YAML of a model chooses."""
    chosen = chosen_by(model)
    encoder, head = (choice(load(group, chosen[group]), group) for group in ("encoder", "head"))
    return encoder, head


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
INTEGRATORS = sorted(path.stem for path in (CONF / "integrator").glob("*.yaml"))
PAIRS = [(m, i) for m in MODELS for i in load("model", m)["integrators"]]
OTHER_PAIRS = [(m, i) for m in MODELS for i in INTEGRATORS if i not in load("model", m)["integrators"]]
# symplectic Euler and Verlet need a separable Hamiltonian, and three pixels have no half
NEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("hdnn", "symplectic_euler"): {"separable": True},
    ("hdnn", "verlet"): {"separable": True},
    ("gradient_flow_conv", "euler"): {"stages": 1},
    # with a large gain, weights that are not trained are too stiff for it
    ("data_node", "dopri5"): {"kappa": 0.5},
    ("lyanet", "dopri5"): {"gain": 1.0, "kappa": 0.5},
    ("resnet18", "euler"): {"stages": 3},
    ("sympflow", "euler"): {"width": 4},  # positions and momenta of more numbers than samples have
}
IMAGES_ONLY = (
    "gradient_flow_conv", "conv_stable_node", "data_node", "lyanet", "continuous", "continuous_lyanet", "resnet18",
    "denoiser", "dncnn",
)  # fmt: skip
VECTORS_ONLY = ("sympflow",)
NO_STEP = (
    "resnet18",
    "mlp",
    "plain",
    "sympflow",
    "dncnn",
)  # their layers solve no ODE, and take neither a step nor a horizon


def kind_of(model: str) -> str:
    return "images" if model in IMAGES_ONLY else "vectors"


def family(model: str, integrator: str, kind: str | None = None) -> Family:
    node = load("model", model) | NEEDS.get((model, integrator), {})
    node |= {} if node["width"] == "outputs" else {"width": 4}
    parts = choice(node, "model"), choice(load("integrator", integrator), "integrator"), *encoder_and_head(model)
    return Family(*parts, KINDS[kind or kind_of(model)])


def make(model: str, integrator: str, kind: str | None = None, **options: Any) -> Network:
    """options: of `Family.network`."""
    return family(model, integrator, kind).network(**options)


def batch(kind: str, size: int = 6) -> Tensor:
    return family("resnet", "euler", kind).samples(size)
