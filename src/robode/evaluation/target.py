"""What is measured without training it: a run's network, or anyone's nn.Module with a file of weights."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robode import __version__
from robode.config.config import EvaluateConfig, ExportConfig, Node, plain
from robode.config.instantiate import check_trusted
from robode.data.batches import in_units
from robode.data.module import DataModule, part
from robode.errors import BadInput
from robode.evaluation.anyones_weights import load_anyones
from robode.evaluation.request import Described
from robode.files import make_folder, write_json
from robode.foreign import apart, blamed
from robode.network import Network, Normalise, build_network, weights_digest
from robode.runs.checkpoints import load_weights
from robode.runs.origin import check_code, check_data
from robode.runs.run import OUTPUTS, Run, checkpoint_path, find
from robode.tasks.classification import Classification

MODULES = OUTPUTS / "modules"
LOOKED_AT, JUMP = 500, 0.1  # samples, and the share by which their accuracy jumps, where a hint is given


@dataclass(frozen=True)
class EvaluationTarget:
    """A network, its data, and the folder that its results go to.

    described: what rows say of the network, of a module as much as is known. about: what a module's
    folder says about it, in module.json; empty for a run. note: one line with † about a run of other code, or empty.
    hints: a line each about what a user may not have meant.
    """

    run: Run
    network: nn.Module
    data: DataModule
    checkpoint: Path
    described: Described
    about: Mapping[str, Any]
    note: str = ""
    hints: tuple[str, ...] = ()

    def make_folder(self) -> None:
        """A run has one; a module gets outputs/modules/<name>-<digest>/. Raises `JobFailed` if the disk refuses."""
        if self.about:
            make_folder(self.run.folder)
            write_json(self.run.folder / "module.json", self.about)


def target_of(config: EvaluateConfig) -> EvaluationTarget:
    """What a command line of `evaluate` or `certify` is about; nothing is written.

    Raises:
        BadInput: no such run, module, checkpoint or data, or parts that do not belong together.
    """
    if config.module is not None:
        return of_module(config, config.module)
    found = of_run(config)
    check_data(found.run, found.data.digest)
    return found


def of_run(config: EvaluateConfig | ExportConfig) -> EvaluationTarget:
    """The network of `config.run` with the weights of `config.checkpoint`; the data are not read.

    Raises:
        BadInput: no such run or checkpoint, or other code trained it and `config.code` is not "any".
    """
    root = config.data_root if isinstance(config, EvaluateConfig) else None
    return trained(str(config.run), config.checkpoint, config.code, root)


def trained(where: str | Path, name: str = "best", code: str = "same", root: str | None = None) -> EvaluationTarget:
    """The network of a run (its folder, its name or a checkpoint in it) with the weights of the checkpoint `name`; the
    data are not read. code: "any" takes a run of other code too; root: of its data, where they have moved.

    Raises:
        BadInput: no such run or checkpoint, or other code trained it.
    """
    run, named = find(where)
    note = check_code(run, code)
    checkpoint = checkpoint_path(run, named or name)
    config = run.config()
    if root is not None:
        config = replace(config, data=config.data.at(root))
    data = DataModule.of(config.data, config.batch_size, config.seed)
    network = build_network(config, data.info)
    load_weights(checkpoint, network)
    return EvaluationTarget(run, network, data, checkpoint, Described.of(config), {}, note)


def of_module(config: EvaluateConfig, module: str) -> EvaluationTarget:
    """`module` (PACKAGE:FACTORY): what the factory returns, called without arguments, with the weights in the file
    `config.checkpoint`; x in data units -> logits.

    Raises:
        BadInput: a package that is not trusted, a factory that is none, weights of another network, or a network that
            does not give one logit a class for the data.
    """
    assert config.data is not None  # validated
    network = _made(module).cpu()
    if not isinstance(network, Network):  # whose gamma and h stay in float64
        network = network.float()
    checkpoint = Path(config.checkpoint)
    placed = load_anyones(network, checkpoint, module)
    data = DataModule.of(config.data, config.batch_size)
    data.prepare()
    _check_logits(network, data, module)
    hints = tuple(filter(None, [placed, normalisation_hint(network, data, module)]))
    name, weights = module.rpartition(":")[2], weights_digest(network)
    digest = hashlib.sha256(f"{module} {weights} {data.digest}".encode()).hexdigest()[:8]
    about = {"module": module, "checkpoint": checkpoint.name, "weights": weights, "data": data.name}
    about |= {"data_digest": data.digest, "version": __version__}
    nodes: Node = {"model": {"_target_": module.replace(":", ".")}, "data": plain(config.data)}
    described = Described(model=name, data=config.data.name, nodes=nodes, on_gpu=torch.cuda.is_available())
    return EvaluationTarget(Run(MODULES / f"{name}-{digest}"), network, data, checkpoint, described, about, hints=hints)


def _made(where: str) -> nn.Module:
    """The module that PACKAGE:FACTORY makes."""
    place, _, name = where.partition(":")
    check_trusted(where, place)
    with blamed(f"module={where}: '{place}' cannot be imported"):
        factory: Any = getattr(importlib.import_module(place), name, None)
    if not callable(factory):
        raise BadInput(f"module={where}: expected a function or a class called {name} in {place}")
    # what the package has merely imported (subprocess.run) is not its own
    check_trusted(where, str(getattr(factory, "__module__", "")))
    return _called(where, factory)


def _called(where: str, factory: Callable[[], object]) -> nn.Module:
    with blamed(f"module={where}: {where}() failed"):
        made = factory()
    if not isinstance(made, nn.Module):
        raise BadInput(f"module={where}: expected a factory that returns a torch.nn.Module, got {type(made).__name__}")
    return made.eval()


def _check_logits(network: nn.Module, data: DataModule, where: str) -> None:
    x = in_units(data.split("test").x[:2])
    expected = (len(x), data.info.task.outputs)
    with blamed(f"module={where}: fails on {data.name}, shape {tuple(x.shape)}"), torch.no_grad(), apart(network):
        logits = network(x)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise BadInput(f"module={where}: expected logits {expected} for data={data.name}, got {got}")


@torch.no_grad()
def normalisation_hint(network: nn.Module, data: DataModule, where: str) -> str:
    """One line for a classifier that is much nearer to chance on samples in data units than on normalised ones: it was
    trained on those. Empty for others."""
    info = data.info
    if not isinstance(info.task, Classification):
        return ""
    x, labels = part(data.split("test"), LOOKED_AT, data.source)
    given, chance = in_units(x), 1 / info.task.outputs
    with apart(network):
        inputs = (given, Normalise(info.mean, info.std, len(info.shape))(given))
        own, other = (float((network(each).argmax(1) == labels).double().mean()) for each in inputs)
    if other - own < JUMP or own - chance > (other - chance) / 2:
        return ""
    return (
        f"module={where}: {100 * own:.3g} % of {len(labels)} test samples are classified correctly, and "
        f"{100 * other:.3g} % after (x - mean)/std of data={data.name}: a network gets x in data units; let it begin "
        f"with its normalisation, for example robode.network.Normalise({info.mean}, {info.std}, {len(info.shape)})"
    )
