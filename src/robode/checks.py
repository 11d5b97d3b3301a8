"""What a composed configuration must satisfy before torch is imported: one sentence for each mistake.

Constructors check their own arguments again; these checks only make the common mistakes cheap to find.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from robode.data.checks import check_data
from robode.errors import BadInput
from robode.instantiate import check_targets, to_plain
from robode.robustness.levels import check_suite
from robode.runs import find

POSITIVE = ("depth", "epochs", "batch_size", "lr", "repeats")
# model.<key> → the words it may be; the classes in robode.ode and robode.fields know the same ones.
MODEL_CHOICES: dict[str, tuple[object, ...]] = {
    "activation": ("tanh", "relu", "leaky_relu", "sigmoid", "softplus"),
    "J": ("canonical", "j2", "file"),
    "trainable_L": (True, False),
    "gamma": ("theorem1", "script_mnist", "script_2d", "differentiable"),
    "gamma_start": ("rule", "zero"),
}
CHECKPOINTS = ("best", "last")


def check(verb: str, cfg: DictConfig) -> None:
    """Refuse a configuration that cannot work.

    Args:
        verb: ``train`` or ``evaluate``.
        cfg: one job's composed configuration, without the ``hydra`` node.

    Raises:
        BadInput: one line saying what was expected, what came and which key to change.
    """
    plain = to_plain(cfg)
    _check_counts(plain)
    _check_suites(plain)
    if verb == "train":
        _check_time(plain)
        _check_model(plain)
        check_data(plain["data"])
        if plain["resume"] is not None:
            find(plain["resume"], key="resume")
    else:
        if plain["run"] == "???":
            raise BadInput("run: expected the run to evaluate, for example run=outputs/default/NAME")
        if plain["checkpoint"] not in CHECKPOINTS:
            raise BadInput(f"checkpoint={plain['checkpoint']}: choose one of: {', '.join(CHECKPOINTS)}")
        find(plain["run"])
    check_targets(plain)


def _check_counts(plain: Mapping[str, Any]) -> None:
    for key in POSITIVE:
        if key in plain and not _positive(plain[key]):
            raise BadInput(f"{key}={plain[key]}: expected a number above 0")
    seed = plain.get("seed")
    if seed is not None and not 0 <= seed < 2**32:
        raise BadInput(f"seed={seed}: expected an integer from 0 to 2**32 - 1")


def _check_time(plain: Mapping[str, Any]) -> None:
    """Exactly one of ``step`` and ``horizon`` is a number, or step is ``auto``."""
    step, horizon = plain["step"], plain["horizon"]
    if step != "auto" and not _positive(step):
        raise BadInput(f"step={step}: expected 'auto' or a number above 0")
    if horizon is not None and not _positive(horizon):
        raise BadInput(f"horizon={horizon}: expected a number above 0")
    if horizon is not None and step != "auto":
        raise BadInput(f"step={step} and horizon={horizon}: give one of them (step=auto is none)")


def _check_model(plain: Mapping[str, Any]) -> None:
    model, integrator = plain["model"], plain["integrator"]["name"]
    for key, choices in MODEL_CHOICES.items():
        if key in model:
            _check_choice(f"model.{key}", model[key], choices)
    supported = model.get("integrators")
    if supported and integrator not in supported:
        raise BadInput(
            f"integrator={integrator}: makes no sense for model={model['name']}; choose one of: {', '.join(supported)}"
        )
    width = model.get("width")
    if width is not None and width != "auto" and (not isinstance(width, int) or width <= 0):
        raise BadInput(f"model.width={width}: expected an integer above 0")
    if model.get("J") == "canonical" and isinstance(width, int) and width % 2:
        raise BadInput(f"model.width={width}: the canonical J needs an even width; change it or model.J")


def _check_choice(key: str, value: Any, choices: Sequence[object]) -> None:
    if value not in choices:
        shown = ", ".join(map(str, choices))
        raise BadInput(f"{key}={value}: choose one of: {shown}")


def _check_suites(plain: Mapping[str, Any]) -> None:
    if not isinstance(plain["suite"], Mapping) or not plain["suite"]:
        raise BadInput("suite: expected at least one perturbation; choose a suite, for example suite=noise")
    check_suite(plain["suite"])


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
