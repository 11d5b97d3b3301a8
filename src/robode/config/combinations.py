"""Which data, encoder, model, head and augmentation go together, as far as their YAML files say it; no torch.

    data:     info: {shape: [1, 28, 28], task: classification, outputs: 10}
    encoder:  fits: {takes: images | vectors, gives: pixels | vectors, pads: vectors | samples}
    augment:  fits: {takes: images | vectors}
    model:    fits: {states: pixels | whole, weights: depth width width, objective: weight_smoothness, keeps: delta}
                                                 # a text may depend on another key, as under `allowed`
    head:     fits: {features: outputs}

takes: what samples must be. gives: a state of every pixel, or one of the whole sample. pads: with zeros up to
model.width. states: whole images are one state each, or pixels alone are. weights: of all layers together at least the
product of these keys and numbers, of a list its largest number, of a word 1. objective: a term that the loss must have;
a term may say what it `needs` of the model, by its keys or by what it says it fits, with | between values, and why
(`because`). keeps: keys of how weights are made and
kept, not of what is computed with them: they may differ from those of the run that a training begins with (`start`).
features: as many as the outputs. What a file does not say is found when the network is built.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from robode.config.allowed import spec_of
from robode.config.config import Node, TrainConfig, Value
from robode.errors import BadInput

LAYER = 1000
"""Bytes of the objects of one layer, at least."""


def check_combination(config: TrainConfig) -> None:
    """Raises `BadInput` for parts of a configuration that do not go together, or that say so in words that cannot
    be read."""
    parts = {"model": config.model, "encoder": config.encoder, "head": config.head, "augment": config.augment}
    fits = {group: _said(part.about.get("fits"), f"{group}/{part.name}.yaml: fits") for group, part in parts.items()}
    info = _said(config.data.info, f"data/{config.data.name}.yaml: info")
    model, data, encoder = f"model={config.model.name}", f"data={config.data.name}", f"encoder={config.encoder.name}"
    shape, gives = info.get("shape"), fits["encoder"].get("gives")
    states = spec_of(fits["model"].get("states"), config.model.arguments)
    kind = {1: "vectors", 3: "images"}.get(len(shape)) if isinstance(shape, list) else None
    numbers = math.prod(shape) if isinstance(shape, list) else 0
    if states == "pixels" and "vectors" in (kind, gives):
        raise BadInput(
            f"{model} and {data if kind == 'vectors' else encoder}: the model takes images, and gets vectors; choose "
            "another of the two"
        )
    for group, word, usual in (("encoder", "encoder", "auto"), ("augment", "augmentation", "none")):
        if kind and (takes := fits[group].get("takes", kind)) != kind:
            raise BadInput(
                f"{group}={parts[group].name} and {data}: the {word} takes {takes}, the data are {kind}; "
                f"choose {group}={usual}"
            )
    if states == "whole" and gives == "pixels":
        raise BadInput(
            f"{encoder} and {model}: the encoder makes a state of every pixel, and the model takes whole images as "
            "vectors; choose encoder=auto, dense or flat"
        )
    width = config.model.arguments.get("width")
    if kind and type(width) is int:
        if width < numbers and fits["encoder"].get("pads") in ("samples", kind):
            raise BadInput(
                f"model.width: expected at least the {numbers} numbers of a sample with {data}, {encoder}; got {width}"
            )
        whole = "vectors" in (kind, gives) or states == "whole"
        outputs = info.get("outputs")
        if whole and fits["head"].get("features") == "outputs" and outputs not in (None, width):
            raise BadInput(
                f"head={config.head.name}: expected a state of {outputs} numbers, as many as a target of {data} "
                f"has, got {width}; set model.width={outputs} or choose head=linear"
            )


def check_needs(config: TrainConfig) -> None:
    """Raises `BadInput` for a term of the loss that needs another model, or a model that needs a term.

    What a model fits is said by its file, and not by the configuration of a run, which keeps none of it.
    """
    fits = _said(config.model.about.get("fits"), f"model/{config.model.name}.yaml: fits")
    model = {"name": config.model.name, **fits, **config.model.arguments}
    for name, part in config.objective.items():
        needs = dict(_said(part.about.get("needs"), f"objective/{name}.yaml: needs")) if part else {}
        because = f": {needs.pop('because')}" if "because" in needs else ""
        if "fits" not in config.model.about:
            needs.pop("fields", None)
        wrong = [key for key, value in needs.items() if str(model.get(key)) not in str(value).split(" | ")]
        if "fields" in wrong:
            raise BadInput(
                f"objective={name}: expected a model whose fields are {needs['fields']} to the sample (data_node, "
                f"lyanet), got model={config.model.name}{because}"
            )
        if wrong:
            words = " ".join(f"model{'' if key == 'name' else f'.{key}'}={value}" for key, value in needs.items())
            got = "" if wrong[0] == "name" else f".{wrong[0]}"
            raise BadInput(f"objective={name}: expected {words}, got model{got}={model.get(wrong[0])}{because}")
    term = spec_of(fits["objective"], config.model.arguments) if "objective" in fits else "anything"
    if term != "anything" and not config.objective.get(term):
        names = ",".join(config.objective)
        raise BadInput(
            f"model={config.model.name}: with these keys it needs a term of the loss: objective=[{names},{term}]"
        )


def check_memory(config: TrainConfig) -> None:
    """Refuse a network that does not fit into the memory of this machine: its weights and their gradients, and the
    objects that its layers are. Raises `BadInput`."""
    numbers: dict[str, int] = {"depth": config.depth} | {
        f"model.{key}": _size(value) for key, value in config.model.arguments.items()
    }
    fits = _said(config.model.about.get("fits"), f"model/{config.model.name}.yaml: fits")
    keys = spec_of(fits.get("weights", "depth"), config.model.arguments).split()
    named = [key if key == "depth" else f"model.{key}" for key in keys if not key.isdigit()]
    constant = math.prod(int(key) for key in keys if key.isdigit())
    needed = 8 * constant * math.prod(numbers.get(key, 1) for key in named) + LAYER * config.depth
    if needed > (there := memory()):
        largest = max((*named, "depth"), key=lambda key: numbers.get(key, 1))
        raise BadInput(
            f"{largest}={numbers[largest]}: the network takes at least {needed / 1e9:.3g} GB, and this machine has "
            f"{there / 1e9:.3g}; choose a smaller {largest}"
        )


def memory() -> float:
    """Bytes of this machine, or of what the process may use of it."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    with suppress(OSError, ValueError):  # a container's; "max" where there is no limit
        there = min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return there


def _size(value: Value) -> int:
    """What a key counts in a product."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return max(map(_size, value), default=1)
    return value if type(value) is int else 1


def _said(said: Value, where: str) -> Node:
    """What a file says under a key that describes it; nothing, where it says nothing."""
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise BadInput(f"{where}: expected KEY: VALUE in it, got {said}")
    return said
