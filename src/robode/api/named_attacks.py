"""Attacks by their names: the class, in small letters, then a loss and a norm where it takes them (apgd_dlr_linf)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache

import robode.attacks
from robode.attacks.attack import Attack
from robode.attacks.balls import NORMS
from robode.config.config import Value
from robode.config.explain import nearest
from robode.config.instantiate import build
from robode.errors import BadInput


@cache
def attacks() -> dict[str, type[Attack]]:
    """Every attack of robode by its name: fgsm, pgd, apgd, …"""
    modules = [
        importlib.import_module(f"robode.attacks.{each.name}") for each in pkgutil.iter_modules(robode.attacks.__path__)
    ]
    kinds = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return {kind.__name__.lower(): kind for kind in kinds if issubclass(kind, Attack) and not inspect.isabstract(kind)}


def attack_named(attack: str | Attack, eps: float, options: Mapping[str, Value]) -> Attack:
    """The attack of that name within eps, with options of its class. One that is made already is taken as it is.

    Raises:
        BadInput: an unknown name or option, or a value that the class refuses.
    """
    if isinstance(attack, Attack):
        if options:
            raise BadInput(f"{next(iter(options))}: expected no options beside an attack that is made already")
        return attack
    kind, *words = str(attack).split("_")
    if kind not in attacks():
        near = nearest(kind, list(attacks()))
        hint = f"did you mean '{near}'?" if near else f"choose one of: {', '.join(sorted(attacks()))}"
        raise BadInput(f"attack={attack}: unknown attack; {hint}")
    made = attacks()[kind]
    node: dict[str, Value] = {"_target_": f"{made.__module__}.{made.__qualname__}", "eps": eps}
    if words and words[-1] in NORMS:
        node["norm"] = words.pop()
    elif words and (near := nearest(words[-1], NORMS)):
        raise BadInput(f"attack={attack}: did you mean '{'_'.join([kind, *words[:-1], near])}'?")
    if words:
        node["loss"] = "_".join(words)
    found = build({**node, **options})
    assert isinstance(found, Attack)
    return found
