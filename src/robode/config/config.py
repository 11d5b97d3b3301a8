"""The typed configuration: what the overrides of a command line, `key=value`, compose to, once.

Fields with a text are the keys that a user types, and the text is their line of `--help`; the values are in
conf/<verb>.yaml. Below the front door these objects are handed down, never dictionaries of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from robode.device import Device

if TYPE_CHECKING:
    Value: TypeAlias = None | bool | int | float | str | Sequence["Value"] | Mapping[str, "Value"]
else:
    Value = object
Node: TypeAlias = Mapping[str, Value]
"""A mapping as it stands in YAML, resolved."""

Code = Literal["same", "any"]


@dataclass(frozen=True)
class Part:
    """An object that a YAML node describes: the dotted name of its class, and its arguments.

    target: "" where robode chooses the class (encoder=auto, head=linear). name: of the entry in its group, or of the
    YAML file that was chosen. about: what its file says for people and for the command line: name, integrators (those
    that a model takes), allowed (what each key may be), fits (what it goes together with); of an objective, task and
    looks_at_target.
    """

    target: str
    name: str
    arguments: Node
    about: Node = field(default_factory=dict)

    def build(self, **more: Any) -> Any:  # of whatever class the node names
        """The object. more: arguments that the node does not have, or that go before its own. Raises `BadInput`."""
        from robode.config.instantiate import build

        return build({"_target_": self.target, **self.arguments}, **more)

    def plain(self) -> dict[str, Value]:
        """The node."""
        target: dict[str, Value] = {"_target_": self.target} if self.target else {}
        return target | dict(self.about) | dict(self.arguments)


@dataclass(frozen=True)
class Choice(Part):
    """A part that is described by the one file chosen from a group."""


Group: TypeAlias = Mapping[str, Part | None]
"""Parts by the names of their entries; null switches an entry off."""


def _word(about: str, expected: str = "", **default: Any) -> Any:
    """A key of the command line. expected: what its value must be, where the type does not say it all."""
    return field(metadata={"about": about, "expected": expected}, **default)


def _key(expected: str, **default: Any) -> Any:
    """A key inside a section."""
    return field(metadata={"expected": expected}, **default)


def _said() -> Any:
    """A key that describes a section; where its file has none, the section has none."""
    return field(metadata={"said": True}, default=None)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A data set. root: the folder of its files. validation: how many samples, or which share, of the training split
    are held out. limit_train: train on so many of the rest. task, info, allowed: what its file says of the data, and of
    the keys of the source. more: keys of the source that its file has here too, so that they are short to type
    (data.size for data.source.size)."""

    name: str
    root: str | None = None
    validation: int | float = _key("0 (none), a share below 1 or a number of samples", default=0)
    limit_train: int | None = _key("a whole number of samples above 0, or null (all)", default=None)
    source: Part
    task: str | None = _said()
    info: Node | None = _said()
    allowed: Node | None = _said()
    more: Node = field(default_factory=dict)

    def at(self, root: str) -> DataConfig:
        """The same data set, whose files lie elsewhere now: below `root` as before, a single file by its name."""

        def moved(node: Node) -> Node:
            files = {key: str(Path(root, Path(str(node[key])).name)) for key in ("file",) if node.get(key)}
            return {**node, **files, **({"root": root} if node.get("root") else {})}

        source = replace(self.source, arguments=moved(self.source.arguments))
        return replace(self, root=root or None, source=source, more=moved(self.more))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """interval: how often the scheduler moves."""

    optimizer: Part
    scheduler: Part | None = None
    interval: Literal["epoch", "step"] = "epoch"


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The machine. captured: steps are replayed from a graph where they can be. more: other arguments of Lightning's
    Trainer."""

    name: str
    accelerator: Literal["cpu", "gpu"]
    devices: int | str = _key("a whole number >= 1 (or auto on GPUs)")
    strategy: str = "auto"
    precision: int | str = "32-true"
    threads: int | None = _key("a whole number >= 1 or null", default=None)
    fast_dev_run: bool = False
    captured: bool = False
    more: Node = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training and what is measured after it. start_weights: the digest of the weights that `start` names, once
    they were looked at (`training.start.pinned`)."""

    verb: ClassVar[str] = "train"

    model: Choice = _word("the family of networks")
    data: DataConfig = _word("the data set; data.root=FOLDER says where its files are")
    depth: int = _word("layers N, each one integrator step")
    seed: int = _word("of the weights, the batch order and the noise")
    seeds: int | Sequence[int] | None = _word(
        "these seeds one after the other, each its own run: how many (1, 2, …) or which: [1,5]",
        expected="how many (seeds=3: 1, 2, 3) or which (seeds=[1,5]), or null for one",
        default=None,
    )
    protocol: Part = _word("how noise is measured: its space, clipping and units")
    integrator: Choice = _word("the one-step method that makes a layer out of the field")
    encoder: Choice = _word("from a sample to the flow's first state")
    head: Choice = _word("from the flow's last state to the outputs")
    augment: Choice = _word("how training images are changed, anew in every step; none = they stay as they are")
    suite: Group = _word("perturbations to evaluate; several: suite=[noise,clean]")
    epochs: int = _word("passes over the training data")
    batch_size: int = _word("samples a step")
    lr: float = _word("learning rate")
    trainer: TrainerConfig = _word("the machine: cpu, gpu, ddp or ddp_sim; trainer.precision=… too")
    run: str | None = _word("name of the new run folder; null = made from the configuration", default=None)
    resume: str | None = _word("continue this run in its own folder", default=None)
    start: str | None = _word(
        "begin with the weights of this finished run; null = random ones; epochs=0 trains no further", default=None
    )
    start_weights: str | None = None
    code: Code = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    force: bool = _word("true = train again what is done already; the old run is kept in .replaced", default=False)
    fail_fast: bool = _word("true = a sweep stops at the first job that fails", default=False)
    step: float | Literal["auto"] = _word(
        "step size h, or give horizon; auto: h·c·gamma = 1 (euler, rk4: at most h*, rk38: 0.46 h*) or the family's own",
        expected="'auto' or a number above 0",
    )
    horizon: float | None = _word("final time T = depth·step; give this or step, not both", default=None)
    repeats: int = _word("noisy copies of the test set for each noise level")
    experiment: str = _word("a recipe from conf/experiment, laid over everything else", default="default")
    objective: Group = _word("terms of the loss")
    optimizer: OptimizerConfig = _word("optimiser and learning-rate schedule")
    callbacks: Group = _word("what happens during training")
    logger: Group = _word("where measurements are written")

    def plain(self) -> dict[str, Any]:
        """As config.yaml holds it."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """One evaluation of a run, or of a module of the user's. data: only with a module; data_root: where the files of a
    run's own data have moved to (the key is data.root)."""

    verb: ClassVar[str] = "evaluate"

    run: str | None = _word("the trained run: its folder, its name, or a checkpoint in it")
    module: str | None = _word("instead of a run: PACKAGE:FACTORY of your own; see ROBODE_TRUST", default=None)
    checkpoint: str = _word("best or last; with module: the file with its weights")
    code: Code = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    split: Literal["test", "validation", "train"] = _word("the samples: test, validation or train", default="test")
    limit: int | None = _word("only the first so many samples, for attacks that take long; null = all", default=None)
    verdicts: int = _word(
        "samples on which robust accuracies get gradient-masking checks; 0 = no verdicts", default=200
    )
    data: DataConfig | None = _word(
        "data.root=FOLDER where the files have moved since training; with module: the data set"
    )
    data_root: str | None = None
    seed: int | None = _word("of the noise; null = the run's own", default=None)
    protocol: Part = _word("how noise is measured: its space, clipping and units")
    suite: Group = _word("perturbations to evaluate; several: suite=[noise,clean]")
    repeats: int = _word("noisy copies of the test set for each noise level")
    batch_size: int = _word("samples at a time")
    device: Device = _word("where it runs: auto (a GPU where there is one), cpu or cuda", default="auto")
    fail_fast: bool = _word("true = a sweep stops at the first job that fails", default=False)

    def plain(self) -> dict[str, Any]:
        """As YAML would say it."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(EvaluateConfig):
    """One certification: an evaluation whose suite has the entry `certified`."""

    verb: ClassVar[str] = "certify"

    radii: float | Sequence[float] | None = _word(
        "radii at which to certify the accuracy; null = those of the suite", default=None
    )
    norm: str = _word("of the perturbation: l2", default="l2")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """One export of a run."""

    verb: ClassVar[str] = "export"

    run: str | None = _word("the trained run: its folder, its name, or a checkpoint in it")
    to: str | None = _word("the folder to write: weights, certificate, configuration, and a program for torch alone")
    checkpoint: str = _word("best or last")
    code: Code = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    fail_fast: bool = _word("true = a sweep stops at the first job that fails", default=False)


@dataclass(frozen=True, kw_only=True)
class StabiliseConfig:
    """One projection of the weights of a trained run, which makes a new run of its configuration; null = as that run
    has it. data: none; data_root: where the files of the run's data have moved to (the word is data.root)."""

    verb: ClassVar[str] = "stabilise"

    run: str | None = _word("the trained run: its folder, its name, or a checkpoint in it")
    delta: float | None = _word("the largest log-norm that the projected weights are proved to have")
    to: str | None = _word("name of the new run folder; null = made from the configuration", default=None)
    epochs: int = _word("passes over the training data after that, projected all the time; 0 = none")
    lr: float | None = _word("learning rate of these epochs", default=None)
    batch_size: int | None = _word("samples a step", default=None)
    seed: int | None = _word("of the batch order and the noise", default=None)
    trainer: TrainerConfig | None = _word("the machine: cpu, gpu, ddp or ddp_sim", default=None)
    suite: Group | None = _word("perturbations to evaluate; several: suite=[noise,clean]", default=None)
    protocol: Part | None = _word("how noise is measured: its space, clipping and units", default=None)
    repeats: int | None = _word("noisy copies of the test set for each noise level", default=None)
    data: DataConfig | None = _word("data.root=FOLDER where the files have moved since training")
    data_root: str | None = None
    code: Code = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    force: bool = _word("true = do again what is done already; the old run is kept in .replaced", default=False)
    fail_fast: bool = _word("true = a sweep stops at the first job that fails", default=False)


Config: TypeAlias = TrainConfig | EvaluateConfig | ExportConfig | StabiliseConfig
CONFIGS: dict[str, type[TrainConfig] | type[EvaluateConfig] | type[ExportConfig] | type[StabiliseConfig]] = {
    kind.verb: kind for kind in (TrainConfig, EvaluateConfig, CertifyConfig, ExportConfig, StabiliseConfig)
}


def plain(config: Any) -> Any:
    """Plain containers of a configuration or a section: what `parse` makes it from."""
    if isinstance(config, Part):
        return config.plain()
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    if not hasattr(config, "__dataclass_fields__"):
        return list(config) if isinstance(config, tuple) else config
    found = {each.name: plain(getattr(config, each.name)) for each in fields(config)}
    for each in fields(config):
        if each.metadata.get("said") and found[each.name] is None:
            del found[each.name]
    return found | found.pop("more", {})
