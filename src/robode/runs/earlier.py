"""Run folders of earlier versions: their configuration in today's words."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from robode.config.instantiate import targets
from robode.config.paths import conf_dir

RENAMED = {"Believable": "GradientMasking"}  # classes
GROUPS = ("model", "data", "integrator", "encoder", "head", "objective", "protocol", "suite", "callbacks", "logger")


def in_todays_words(config: DictConfig) -> None:
    """Change what an earlier version said otherwise: `model.ends` chose encoder and head, the suite believable is
    gradient_masking, and a class of robode's that has moved to another module is found by its name."""
    model = config.get("model")
    if isinstance(model, DictConfig) and model.pop("ends", None) is not None:
        config["encoder"] = {"name": "bounded", "bounded": True}
        config["head"] = {"name": "orthonormal", "_target_": "robode.heads.Orthonormal"}
    suite = config.get("suite")
    if isinstance(suite, DictConfig) and "believable" in suite:
        suite["gradient_masking"] = suite.pop("believable")
    _move(config)


def _move(node: Any) -> None:
    if not OmegaConf.is_config(node):
        return
    if isinstance(node, DictConfig) and "_target_" in node:
        target = str(node["_target_"])
        if target.startswith("robode."):
            name = target.rpartition(".")[2]
            node["_target_"] = _homes().get(RENAMED.get(name, name), target)
    keys = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            _move(node[key])


@cache
def _homes() -> dict[str, str]:
    """The name of every class that the project's own YAML files describe -> where it is today."""
    files = (file for group in GROUPS for file in sorted((conf_dir() / group).rglob("*.yaml")))
    named = (target for file in files for target in targets(yaml.safe_load(file.read_text(encoding="utf-8"))))
    return {target.rpartition(".")[2]: target for target in named if target.startswith("robode.")}
