"""conf/keys.yaml: what the keys of a class may be, for the command line, and never other keys than the class has."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from robode.config.allowed import check_part, keys_of_classes
from robode.config.config import Part
from robode.errors import BadInput

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("suite", "objective", "callbacks", "optimizer", "protocol")
FROM_ROBODE = {"params", "optimizer", "last_epoch", "save_dir"}  # arguments that no YAML file gives


def named(node: object) -> Iterator[str]:
    """Every class that a node and those below it name."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for below in node.values():
            yield from named(below)


USED = sorted(
    {
        target
        for group in GROUPS
        for file in (CONF / group).rglob("*.yaml")
        for target in named(yaml.safe_load(file.read_text()))
    }
)


def test_every_class_that_a_file_names_is_there():
    assert set(USED) <= set(keys_of_classes())


@pytest.mark.parametrize("target", sorted(keys_of_classes()))
def test_the_keys_are_the_arguments_of_the_class(target):
    module, _, name = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    arguments = {key for key in parameters if key not in FROM_ROBODE}
    known = keys_of_classes()[target]
    assert set(known) <= arguments
    if target.startswith("robode."):
        assert set(known) == arguments
    defaults = {key: parameters[key].default for key in known}
    given = {key: value for key, value in defaults.items() if value is not inspect.Parameter.empty}
    check_part("suite.x", Part(target, "x", given))


PGD = {"eps": 0.1, "norm": "linf", "steps": 20}


@pytest.mark.parametrize(("given", "task", "says"), [
    ({"norm": "l3"}, None, "suite.x.norm=l3: choose one of: linf, l2, l1"),
    ({"steps": 0}, None, "suite.x.steps=0: expected integer >= 1"),
    ({"eps": "8/x"}, None, "suite.x.eps=8/x: expected a number (or a list of numbers) of at least 0"),
    ({"stepz": 3}, None, "suite.x.stepz: robode.attacks.pgd.PGD has no such key; did you mean suite.x.steps?"),
    ({"loss": "foo"}, "classification", "suite.x.loss=foo: choose one of: null, ce, margin, dlr"),
    ({"loss": "dlr"}, "regression", "suite.x.loss=dlr: choose one of: null, error"),
])  # fmt: skip
def test_what_does_not_fit(given, task, says):
    with pytest.raises(BadInput) as error:
        check_part("suite.x", Part("robode.attacks.pgd.PGD", "x", {**PGD, **given}), task)
    assert str(error.value) == says


def test_what_fits_and_what_nobody_knows():
    check_part(
        "suite.x", Part("robode.attacks.pgd.PGD", "x", {**PGD, "eps": ["2/255", 0.3], "loss": "mine"}), "denoising"
    )
    check_part("suite.x", Part("mypackage.Attack", "x", {"stepz": -1}))  # it says itself what is wrong
