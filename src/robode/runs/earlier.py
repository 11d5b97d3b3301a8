"""Run folders and reports of earlier versions: their configuration and their rows in today's words."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import yaml
from omegaconf import DictConfig, OmegaConf

from robode.config.instantiate import targets
from robode.config.paths import conf_dir

GROUPS = ("model", "data", "integrator", "encoder", "head", "objective", "protocol", "suite", "callbacks", "logger")

CLASSES = {"Sound": "DataSpace", "MinimalNorm": "FMN"}
"""Classes of YAML files that had another name."""
NAMES = {"standard_": "ensemble_", "minimal_": "fmn_", "standard ": "robode ensemble ", "sound: ": "data space: "}
"""How names of perturbations, and of columns of published tables, began."""


def rows_in_todays_words(rows: pd.DataFrame) -> pd.DataFrame:
    """A table of texts, rows of results.csv or of a report, with the names of protocols, perturbations and columns that
    they have today."""
    changed: dict[str, pd.Series] = {}
    for name in rows.columns.intersection(["perturbation", "column"]):
        for then, today in NAMES.items():
            changed[name] = changed.get(name, rows[name]).str.replace(f"^{then}", today, regex=True)
    if "protocol" in rows:
        changed["protocol"] = rows["protocol"].replace("sound", "data_space")
    return rows.assign(**changed)


def in_todays_words(config: DictConfig) -> None:
    """Change what an earlier version said otherwise: `model.ends` chose encoder and head, and a class of robode's that
    has moved to another module is found by its name."""
    model = config.get("model")
    if isinstance(model, DictConfig) and model.pop("ends", None) is not None:
        config["encoder"] = {"name": "bounded", "bounded": True}
        config["head"] = {"name": "orthonormal", "_target_": "robode.heads.Orthonormal"}
    _move(config)


def _move(node: Any) -> None:
    if not OmegaConf.is_config(node):
        return
    if isinstance(node, DictConfig) and "_target_" in node:
        target = str(node["_target_"])
        if target.startswith("robode."):
            name = target.rpartition(".")[2]
            node["_target_"] = _homes().get(CLASSES.get(name, name), target)
    if isinstance(node, DictConfig) and "spare_certified" in node:
        node["skip_certified"] = node.pop("spare_certified")
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
