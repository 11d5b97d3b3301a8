"""Run folders and reports of earlier versions: their configuration and their rows in today's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from robode.config.config import Node, Value
from robode.config.paths import conf_dir
from robode.runs.identity import USUAL

if TYPE_CHECKING:
    import pandas as pd  # which the list of runs, that needs this module, leaves alone

GROUPS = ("model", "data", "integrator", "encoder", "head", "augment", "objective", "protocol", "suite", "callbacks",
          "logger")  # fmt: skip
CLASSES = {"Sound": "DataSpace", "MinimalNorm": "FMN", "Believable": "GradientMasking"}
"""Classes of YAML files that had another name."""
NAMES = {"standard_": "ensemble_", "minimal_": "fmn_", "standard ": "robode ensemble ", "sound: ": "data space: "}
"""How names of perturbations, and of columns of published tables, began."""


def rows_in_todays_words(rows: pd.DataFrame) -> pd.DataFrame:
    """A table of texts, rows of results.csv or of a report, with the names of protocols, perturbations and columns that
    they have today."""
    changed: dict[str, pd.Series] = {}
    for name in rows.columns.intersection(["perturbation", "column"]):
        said = {text: _renamed(text) for text in rows[name].unique()}  # of many rows a few
        if any(text != today for text, today in said.items()):
            changed[name] = rows[name].map(said)
    if "protocol" in rows:
        changed["protocol"] = rows["protocol"].replace("sound", "data_space")
    return rows.assign(**changed)


def _renamed(text: str) -> str:
    for then, today in NAMES.items():
        text = re.sub(f"^{then}", today, text)
    return text


BOUNDED: Mapping[str, Value] = {
    "encoder": {"name": "bounded", "bounded": True},
    "head": {"name": "orthonormal", "_target_": "robode.heads.Orthonormal"},
}


def in_todays_words(plain: Node) -> dict[str, Value]:
    """What an earlier version said otherwise: `model.ends` chose encoder and head, or nothing did; a protocol had a
    name; the suite gradient_masking was believable; a class of robode's that has moved is found by its name."""
    model, protocol = plain.get("model"), plain.get("protocol")
    found: dict[str, Value] = {**USUAL, **plain}
    if isinstance(model, Mapping) and "ends" in model:
        found |= BOUNDED if model["ends"] is not None else {}
        found["model"] = {key: value for key, value in model.items() if key != "ends"}
    suite = plain.get("suite")
    if isinstance(suite, Mapping) and "believable" in suite:
        found["suite"] = {"gradient_masking" if key == "believable" else key: node for key, node in suite.items()}
    if isinstance(protocol, Mapping):
        found["protocol"] = {key: value for key, value in protocol.items() if key != "name"}
    return {key: _moved(value) for key, value in found.items()}


def _moved(node: Value) -> Value:
    if isinstance(node, list):
        return [_moved(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    moved: dict[str, Value] = {key: _moved(value) for key, value in node.items()}
    target = str(node.get("_target_", ""))
    if target.startswith("robode."):
        name = target.rpartition(".")[2]
        moved["_target_"] = _homes().get(CLASSES.get(name, name), target)
    if "spare_certified" in moved:
        moved["skip_certified"] = moved.pop("spare_certified")
    return moved


@cache
def _homes() -> dict[str, str]:
    """The name of every class that the project's own YAML files describe -> where it is today."""
    files = (file for group in GROUPS for file in sorted((conf_dir() / group).rglob("*.yaml")))
    named = (target for file in files for target in re.findall(r"_target_: *(robode\.[\w.]+)", file.read_text("utf-8")))
    return {target.rpartition(".")[2]: target for target in named}
