"""Weights of anyone's network, wherever a file has them: bare, under a key (state_dict, model, ema), or with a prefix
that a wrapper has put in front of each name (module., model., _orig_mod.). Nothing in a file can run code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.foreign import reason

State: TypeAlias = Mapping[str, Tensor]
WRAPPERS = {"", "module", "model", "net", "network", "ema", "model_ema", "ema_model", "_orig_mod"}
"""Names under which others keep a network that they train, average or compile. One behind another name is a part of a
network, which may do more with it."""
DEEPEST = 2  # keys below each other, as of {"ema": {"module": …}}
NAMED = re.compile(r"GLOBAL (\S+)")


def load_anyones(network: nn.Module, path: Path, where: str) -> str:
    """Loads the one state dict in the file whose names are the network's. where: who made the network, for messages.
    Returns a line about where the weights stood, empty where the file is a state dict itself.

    Raises:
        BadInput: no such file, other content than tensors, several networks that fit, or another network.
    """
    states = dict(_state_dicts(_content(path)))
    names = network.state_dict().keys()
    found = {(place, prefix): state for place, each in states.items() for prefix, state in _without_prefix(each, names)}
    fits = {key: state for key, state in found.items() if set(key[1].split(".")) <= WRAPPERS}
    if len(fits) > 1:
        raise BadInput(f"checkpoint={path}: {_listed(fits)} fit {where}(); expected one, save that alone")
    if not fits and len(states) != 1:
        held = f"the state dicts {', '.join(states)}, none of which fits {where}()" if states else "no state dict"
        raise BadInput(f"checkpoint={path}: expected a state dict saved by torch.save, got {held}")
    (place, prefix), state = next(iter((fits or {(place, ""): state for place, state in states.items()}).items()))
    try:
        network.load_state_dict(dict(state))
    except (Exception, SystemExit) as error:  # a module may load in a way of its own
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[-1].strip()}"
        hint = "" if fits else _hint(found, state, names)
        raise BadInput(f"checkpoint={path}: holds another network than {where}() makes ({said}){hint}") from error
    return f"checkpoint={path}: weights taken from {_listed([(place, prefix)])}" if place or prefix else ""


def _hint(found: Collection[tuple[str, str]], state: State, names: Collection[str]) -> str:
    """What is called otherwise than the network's names."""
    if found:
        return f"; {_listed(found)} would fit: save that part alone, if it is the network"
    strange, missing = (next((name for name in a if name not in b), "") for a, b in ((state, names), (names, state)))
    said = [f"has {strange}, which is strange to it"] * bool(strange) + [f"lacks {missing}"] * bool(missing)
    return f"; the file {' and '.join(said)}" if said else ""


def _content(path: Path) -> object:
    expected = f"checkpoint={path}: expected a state dict saved by torch.save(network.state_dict(), FILE)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: object = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{expected} ({reason(error)})") from error
    except Exception as error:  # zip, pickle: all raise; torch's advice, to load it all the same, is not passed on
        named = NAMED.search(str(error))
        what = f"an object of {named[1]}" if named else "something else"
        raise BadInput(f"{expected}, got {what}, and only tensors are read: other objects can run code") from error
    return found


def _state_dicts(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Mappings from names to tensors in a file's content, each with the keys that lead to it."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    if any(isinstance(value, Tensor) for value in content.values()) or not (content or depth):
        yield place, content
    elif depth < DEEPEST:
        for key, value in content.items():
            yield from _state_dicts(value, f"{place}.{key}" if place else key, depth + 1)


def _without_prefix(state: State, names: Collection[str]) -> Iterator[tuple[str, State]]:
    """Each prefix behind which the state dict has just these names, with what stands there; "" only where there is
    nothing else."""
    if set(state) == set(names):
        yield "", state
        return
    last = next(iter(names), "")
    for key in state:
        if last and key.endswith(f".{last}"):
            prefix = key.removesuffix(last)
            found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if set(found) == set(names):
                yield prefix, found


def _listed(places: Iterable[tuple[str, str]]) -> str:
    """(key, prefix) in words."""
    return " and ".join(
        " ".join(filter(None, [place and f"the key {place}", prefix and f"the names {prefix}*"])) or "the whole file"
        for place, prefix in places
    )
