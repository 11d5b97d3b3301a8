"""The words a user types, with their types: ``depth=abc`` is refused with a sentence by these classes.

The values are in conf/<verb>.yaml. Groups (model, data, …) are left open: their keys
are the arguments of the class that a YAML file names. The help texts are what ``robode train --help`` prints.
"""

from dataclasses import dataclass, field, fields
from typing import Any

MISSING = "???"


def _word(about: str, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"about": about})


def _group(about: str) -> Any:
    return _word(about, default=None)


def _place() -> Any:
    """No word: a key that a file of conf/data may fill for ``robode train``, and that other verbs drop."""
    return field(default=None)


@dataclass
class Train:
    """Top-level keys of ``robode train``."""

    model: Any = _group("the family of networks")
    data: Any = _group("the data set; data.root=FOLDER says where its files are")
    depth: int = _word("layers N, each one integrator step")
    seed: int = _word("of the weights, the batch order and the noise")
    seeds: Any = _word("these seeds one after the other, each its own run: how many (1, 2, …) or which: [1,5]")
    protocol: Any = _group("how noise is measured: its space, clipping and units")
    integrator: Any = _group("the one-step method that makes a layer out of the field")
    encoder: Any = _group("from a sample to the flow's first state")
    head: Any = _group("from the flow's last state to the outputs")
    suite: Any = _group("perturbations to evaluate; several: suite=[noise,clean]")
    epochs: int = _word("passes over the training data")
    batch_size: int = _word("samples a step")
    lr: float = _word("learning rate")
    trainer: Any = _group("the machine: cpu, gpu, ddp or ddp_sim; trainer.precision=… too")
    run: str | None = _word("name of the new run folder; null = made from the configuration")
    resume: str | None = _word("continue this run in its own folder")
    code: str = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    force: bool = _word("true = train again what is done already; the old run is kept in .replaced")
    fail_fast: bool = _word("true = a sweep stops at the first job that fails")
    step: Any = _word("step size h, or give horizon; auto: h·c·gamma = 1 (euler, rk4: at most h*) or the family's own")
    horizon: float | None = _word("final time T = depth·step; give this or step, not both")
    repeats: int = _word("noisy copies of the test set for each noise level")
    experiment: str = _word("a recipe from conf/experiment, laid over everything else", default="default")
    objective: Any = _group("terms of the loss")
    optimizer: Any = _group("optimiser and learning-rate schedule")
    callbacks: Any = _group("what happens during training")
    logger: Any = _group("where measurements are written")


@dataclass
class Evaluate:
    """Top-level keys of ``robode evaluate``; all others are read from the run."""

    run: str = _word("the trained run: its folder, its name, or a checkpoint in it")
    module: str | None = _word("instead of a run: PACKAGE:FACTORY of your own; see ROBODE_TRUST")
    checkpoint: str = _word("best or last; with module: the file with its weights")
    code: str = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    split: str = _word("the samples: test, validation or train", default="test")
    limit: int | None = _word("only the first so many samples, for attacks that take long; null = all")
    verdicts: int = _word("samples on which robust accuracies get gradient-masking checks; 0 = no verdicts", 200)
    data: Any = _group("data.root=FOLDER where the files have moved since training; with module: the data set")
    seed: int | None = _word("of the noise; null = the run's own")
    protocol: Any = _group("how noise is measured: its space, clipping and units")
    suite: Any = _group("perturbations to evaluate; several: suite=[noise,clean]")
    repeats: int = _word("noisy copies of the test set for each noise level")
    batch_size: int = _word("samples at a time")
    device: str = _word("where it runs: auto (a GPU where there is one), cpu or cuda", default="auto")
    fail_fast: bool = _word("true = a sweep stops at the first job that fails")
    objective: Any = _place()


@dataclass
class Certify(Evaluate):
    """Top-level keys of ``robode certify``."""

    radii: Any = _word("radii at which to certify the accuracy; null = those of the suite")
    norm: str = _word("of the perturbation: l2", default="l2")


@dataclass
class Export:
    """Top-level keys of ``robode export``."""

    run: str = _word("the trained run: its folder, its name, or a checkpoint in it")
    to: str = _word("the folder to write: model.safetensors, certificate.json, config.yaml")
    checkpoint: str = _word("best or last")
    code: str = _word("same = refuse a run that other code trained; any = use it all the same, with †", default="same")
    fail_fast: bool = _word("true = a sweep stops at the first job that fails")


SCHEMAS: dict[str, type] = {"train": Train, "evaluate": Evaluate, "certify": Certify, "export": Export}


def words(verb: str) -> dict[str, str]:
    """Top-level words of a verb, each with one line of help."""
    return {word.name: word.metadata["about"] for word in fields(SCHEMAS[verb]) if word.metadata}


def places(verb: str) -> list[str]:
    """Keys that files may fill and that are no words of the verb."""
    return [word.name for word in fields(SCHEMAS[verb]) if not word.metadata]


def groups(verb: str) -> list[str]:
    """Those of the words that choose YAML files, or hold keys of their own."""
    return [word.name for word in fields(SCHEMAS[verb]) if word.default is None and word.metadata]


def expected_type(verb: str, key: str) -> str | None:
    """What a top-level word must be, in words; None where anything goes or the key is unknown."""
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    for item in fields(SCHEMAS[verb]):
        if item.name == key:
            options = getattr(item.type, "__args__", (item.type,))
            return next((names[t] for t in options if t in names), None)
    return None


def register() -> None:
    """Make the schemas known to Hydra under the names that the primary configs list first."""
    from hydra.core.config_store import ConfigStore

    for verb, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{verb}_schema", node=schema, provider="robode")
