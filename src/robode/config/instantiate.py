"""From a configuration node to an object, without letting the configuration choose what code runs.

A configuration may come from a colleague, a run folder or a download. `_target_` may therefore name only a
class, never a function, that lives in a known package and is one of the things a configuration is meant to
describe.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robode.config.allowed import DESCRIPTION, OF_OBJECTIVES
from robode.errors import BadInput, JobFailed
from robode.foreign import reason

if TYPE_CHECKING:
    from robode.config.config import Node, Value

PACKAGES = ("robode", "torch.nn", "torch.optim", "lightning", "torchmetrics")
# Where robode keeps the classes that YAML files describe; its other modules hold machinery.
NOUNS = (
    "robode.attacks", "robode.certificates", "robode.corruptions", "robode.data", "robode.encoders",
    "robode.families", "robode.heads", "robode.integrators", "robode.masking.logit_scale",
    "robode.masking.reference_attacks", "robode.objectives", "robode.papers.figures", "robode.quantities",
)  # fmt: skip
TRUST = "ROBODE_TRUST"


def build(node: Any, drop: Collection[str] = (), **arguments: Any) -> Any:
    """The object that `node` describes: its `_target_` called with its other keys and `arguments`.

    Nested nodes with a `_target_` are built first. Lists and mappings arrive as plain Python containers.
    drop: keys of the node that are for people (name) and not arguments of the class.

    Raises:
        BadInput: a target that is not allowed or not found, or arguments that its class refuses.
    """
    from hydra.utils import instantiate

    plain = to_plain(node)
    if not isinstance(plain, Mapping) or "_target_" not in plain:
        raise BadInput(f"expected a node with a _target_, got {plain!r}")
    plain = {key: value for key, value in plain.items() if key not in drop}
    check_keys(plain)
    try:
        return instantiate(plain, _convert_="all", _partial_=True)(**arguments)
    except (BadInput, JobFailed):
        raise
    except Exception as error:  # a class of the user's may raise anything
        raise _explain(str(plain["_target_"]), error) from error


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Puts the key of a node in front of what is wrong with one of its settings, where the sentence has no key yet."""
    try:
        yield
    except BadInput as error:
        if str(error).startswith((key.partition(".")[0], "_target_")):
            raise
        setting = re.match(r"\w+[=:]", str(error))
        raise BadInput(f"{key}{'.' if setting else ': '}{error}") from error


def check_keys(plain: Value, place: str = "") -> None:
    """Import every class that a plain configuration names, and refuse a key that its class does not have; builds
    nothing. place: where the configuration stands, for the complaint.

    Raises:
        BadInput: like `build`.
    """
    if isinstance(plain, Mapping):
        if "_target_" in plain:
            _check_arguments(_resolve(plain["_target_"]), plain, place)
        for key, value in plain.items():
            check_keys(value, f"{place}.{key}" if place else str(key))
    elif isinstance(plain, list):
        for value in plain:
            check_keys(value, place)


def _check_arguments(made: type, node: Node, place: str) -> None:
    """Raises `BadInput` for the first key of a node that the class has no argument for."""
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):  # a class that does not say
        return
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return
    known = [each.name for each in parameters if each.kind is not inspect.Parameter.POSITIONAL_ONLY]
    described = (*DESCRIPTION, "_args_", *(OF_OBJECTIVES if place.startswith("objective.") else ()))
    for key in node:
        if key not in known and key not in described:
            near = get_close_matches(str(key), known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(known) or 'no keys'}"
            where = f"{place}.{key}" if place else str(key)
            raise BadInput(f"unknown key '{where}' of {node['_target_']}: {hint}")


def check_targets(config: Any) -> None:
    """Refuse a configuration by the names of its targets alone, without importing any.

    Raises:
        BadInput: a `_target_` outside the allowed packages, or a `hydra` node (Hydra's own nodes can run
        commands).
    """
    plain = config if isinstance(config, dict) else to_plain(config)
    if isinstance(plain, Mapping) and "hydra" in plain:
        raise BadInput("expected no 'hydra' node in a configuration of robode: it can run commands; remove it")
    for target in targets(plain):
        _check_name(target)


def to_plain(config: Any) -> Any:
    """Resolved plain containers: interpolated targets become visible, and checkpoints stay loadable."""
    if hasattr(config, "plain"):  # typed already
        return config.plain()
    if not isinstance(config, DictConfig | ListConfig):
        config = OmegaConf.create(config)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(f"the configuration cannot be resolved: {_first_line(error)}") from error


def targets(node: Value) -> Iterator[Any]:
    """Every `_target_` anywhere in a plain configuration, as it stands there."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from targets(each)


def _packages() -> tuple[str, ...]:
    return PACKAGES + trusted()


def trusted() -> tuple[str, ...]:
    """Packages that the user's environment admits."""
    return tuple(name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip())


def check_trusted(module: str, home: str) -> None:
    """Raises `BadInput` for a package that the environment does not admit. module: what the user typed; home: the
    dotted name that would run."""
    if not inside(home, trusted()):
        raise BadInput(
            f"module={module}: '{home}' is not trusted to run code; to admit a package of your own set "
            f"{TRUST}={module.partition(':')[0].partition('.')[0]} in the environment"
        )


def inside(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the packages, or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def _check_name(target: Value) -> str:
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise BadInput(f"_target_: expected the dotted name of a class, got {target!r}")
    if not inside(target, _packages()):
        package = target.split(".")[0]
        raise BadInput(
            f"_target_={target}: expected a class from {', '.join(PACKAGES)}; "
            f"to admit a package of your own set {TRUST}={package} in the environment"
        )
    return target


def _resolve(target: Value) -> type:
    """The class that `target` names. Raises `BadInput` for anything that a configuration must not create."""
    found = _import(_check_name(target))
    if not isinstance(found, type):
        raise BadInput(f"_target_={target}: expected a class, got a {type(found).__name__}")
    home = f"{found.__module__}.{found.__qualname__}"
    # An allowed module may have imported a class from anywhere (subprocess.Popen): its home decides.
    _check_name(home)
    if not (inside(home, NOUNS + trusted()) or issubclass(found, _bases())):
        raise BadInput(
            f"_target_={target}: expected a Module, Optimizer, LRScheduler, Callback, Logger, Metric "
            "or a class of robode that YAML files describe"
        )
    return found


def _bases() -> tuple[type, ...]:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torchmetrics import Metric

    return (Module, Optimizer, LRScheduler, Callback, Logger, Metric)


def _import(target: str) -> Any:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found = _module(".".join(parts[:cut]), target)
        if found is not None:
            try:
                return functools.reduce(getattr, parts[cut:], found)
            except AttributeError:
                break
    raise BadInput(f"_target_={target}: no such class")


def _module(name: str, target: str) -> Any:
    """The module, or None where the name is none inside a package that is there."""
    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == package:
            why = f"package '{package}' cannot be imported; install it or set PYTHONPATH"
        elif error.name is not None and inside(name, (error.name,)):
            return None
        else:
            why = f"needs the package '{error.name}', which is not installed"
        raise BadInput(f"_target_={target}: {why}") from error
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything
        raise BadInput(f"_target_={target}: '{name}' cannot be imported ({reason(error)})") from error


def _explain(target: str, error: Exception) -> Exception:
    """One line for what a constructor refused; errors that already are one line stay as they are."""
    cause: BaseException = error
    while cause.__cause__ is not None:  # Hydra wraps what a nested constructor raised
        cause = cause.__cause__
        if isinstance(cause, BadInput | JobFailed):
            return cause
    if isinstance(cause, ArithmeticError):
        return BadInput(f"{target}: its numbers are too large or too small ({reason(cause)}); change one of its keys")
    return BadInput(f"{target}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
