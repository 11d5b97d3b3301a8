"""Somebody else's code, called by robode: whatever it raises becomes one line that says whose it was, it gets no tensor
of robode's to write into, and what it inherits of a certificate holds only for what it inherits of a computation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import isroutine
from typing import TYPE_CHECKING, TypeVar, cast

from robode.errors import BadInput, JobFailed

if TYPE_CHECKING:  # refusals need no torch
    from torch import Tensor, nn

Given = TypeVar("Given")

HARMLESS = frozenset({
    "__init__", "__post_init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__setstate__",
    "__getstate__", "__replace__", "extra_repr", "reset_parameters", "project_", "needs_images", "state_dict",
    "load_state_dict", "lipschitz", "lognorm", "lognorm_bounds", "euler_lipschitz", "enclose", "jacobian",
})  # fmt: skip
"""Methods that compute no value of a map: a class may write them anew and keep what it inherits of a certificate."""
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Raises `BadInput` ("<what> (<reason>)") for anything that the body raises, SystemExit too: somebody's sys.exit is
    no reason to end robode without a word. Ctrl-C passes."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise BadInput(f"{what} ({reason(error)})") from error


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Like `blamed`, around code that may be robode's too: what that refuses (`BadInput`, `JobFailed`) says itself why,
    and is `BadInput` as it stands."""
    try:
        yield
    except JobFailed as error:
        raise BadInput(str(error)) from error
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(f"{what} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """The kind of an error and the first line of its message; all of a message of robode's own."""
    if isinstance(error, BadInput):
        return str(error)
    line = ESCAPES.sub("", (str(error).splitlines() or [""])[0])
    return (f"{type(error).__name__}: {line}" if line else type(error).__name__)[:160]


def native(thing: object) -> bool:
    """Whether an object's class, or a function itself, is robode's."""
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


# ---- its tensors and ours -------------------------------------------------------------------------------------------


@contextmanager
def apart(network: nn.Module | Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Modules of others in the network, or the network itself, get copies of what they are given, and what they give is
    copied: one that works in place (x.sub_(mean)), or answers in a buffer of its own, changes nothing of robode's.
    Networks of robode's own are called as they are."""
    with ExitStack() as after:
        for module in _foreign(network):
            if _copies_given not in module._forward_pre_hooks.values():
                after.callback(module.register_forward_pre_hook(_copies_given).remove)
                after.callback(module.register_forward_hook(_copies_found).remove)
        yield


def _foreign(module: nn.Module | Callable[[Tensor], Tensor]) -> Iterator[nn.Module]:
    """The outermost modules that are not robode's; of what robode's own are made of, torch's are used knowingly."""
    from torch import nn

    if isinstance(module, nn.Module) and not native(module):
        yield module
    elif isinstance(module, nn.Module):
        for child in module.children():
            if not type(child).__module__.startswith("torch."):
                yield from _foreign(child)


def _copies_given(module: nn.Module, given: tuple[Given, ...]) -> tuple[Given, ...]:
    return tuple(copied(each) for each in given)


def _copies_found(module: nn.Module, given: tuple[Tensor, ...], found: Given) -> Given:
    return copied(found)


def copied(value: Given) -> Given:
    """A tensor's copy; anything else as it is."""
    from torch import Tensor

    return cast("Given", value.clone() if isinstance(value, Tensor) else value)


@contextmanager
def unchanged(what: str, **given: Tensor | None) -> Iterator[None]:
    """Raises `BadInput` ("<what> changes its <name>") where the body has changed one of these tensors."""
    import torch

    before = {name: value.clone() for name, value in given.items() if value is not None}
    yield
    for name, old in before.items():
        new = given[name]
        if new is not None and not torch.allclose(new, old, rtol=0, atol=0, equal_nan=True):
            raise BadInput(f"{what} changes its {name}, which belongs to others too; expected a copy to be worked on")


# ---- its classes and our certificates -------------------------------------------------------------------------------


def speaks_of(kind: type, certificate: str) -> bool:
    """Whether what a class says in the method `certificate` is about what it computes: the class that wrote it has no
    method that is written anew below it. What is abstract there waits for being written."""
    author = next((each for each in kind.__mro__ if certificate in vars(each)), kind)
    return not rewritten(kind, author)


def rewritten(kind: type, base: type) -> list[str]:
    """Names of the methods of `base` that a class derived from it writes anew and that can change what it computes."""
    below = kind.__mro__[: kind.__mro__.index(base)]
    names = {name: None for each in below for name in vars(each) if name not in HARMLESS}
    return [name for name in names if isroutine(old := getattr(base, name, None)) and not _waits(old)]


def _waits(method: Callable[..., Given]) -> bool:
    """Whether it is abstract, or torch's way of saying so."""
    return getattr(method, "__isabstractmethod__", False) or method.__name__ == "_forward_unimplemented"


def patched(module: nn.Module) -> list[str]:
    """What makes a module compute something else than its class: methods that were set on the module itself, and
    hooks of others, on it or on all modules."""
    from torch.nn.modules import module as torchs

    found = [name for name in vars(module) if isroutine(getattr(type(module), name, None))]
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    every = [*torchs._global_forward_pre_hooks.values(), *torchs._global_forward_hooks.values()]
    return found + ["hooks"] * any(not native(hook) for hook in hooks + every)
