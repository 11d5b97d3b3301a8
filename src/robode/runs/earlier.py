"""Run folders of earlier versions: their configuration in today's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from robode.config.config import Value
from robode.config.instantiate import targets
from robode.config.paths import conf_dir
from robode.runs.identity import USUAL

GROUPS = ("model", "data", "integrator", "encoder", "head", "objective", "protocol", "suite", "callbacks", "logger")
BOUNDED: Mapping[str, Value] = {
    "encoder": {"name": "bounded", "bounded": True},
    "head": {"name": "orthonormal", "_target_": "robode.heads.Orthonormal"},
}


def in_todays_words(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version said otherwise: `model.ends` chose encoder and head, or nothing did; a protocol had a
    name; and a class of robode's that has moved to another module is found by its name."""
    model, protocol = plain.get("model"), plain.get("protocol")
    found: dict[str, Any] = {**USUAL, **plain}
    if isinstance(model, Mapping) and "ends" in model:
        found |= BOUNDED if model["ends"] is not None else {}
        found["model"] = {key: value for key, value in model.items() if key != "ends"}
    if isinstance(protocol, Mapping):
        found["protocol"] = {key: value for key, value in protocol.items() if key != "name"}
    return {key: _moved(value) for key, value in found.items()}


def _moved(node: Any) -> Any:
    if isinstance(node, list):
        return [_moved(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    moved = {key: _moved(value) for key, value in node.items()}
    target = str(node.get("_target_", ""))
    if target.startswith("robode."):
        moved["_target_"] = _homes().get(target.rpartition(".")[2], target)
    return moved


@cache
def _homes() -> dict[str, str]:
    """The name of every class that the project's own YAML files describe -> where it is today."""
    files = (file for group in GROUPS for file in sorted((conf_dir() / group).rglob("*.yaml")))
    named = (target for file in files for target in targets(yaml.safe_load(file.read_text(encoding="utf-8"))))
    return {target.rpartition(".")[2]: target for target in named if target.startswith("robode.")}
