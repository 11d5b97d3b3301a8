"""From a YAML file to what its contracts are held against, and what that has found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from robode.config.allowed import PLACES, check_value
from robode.config.config import Choice, DataConfig, Part, TrainConfig
from robode.config.instantiate import inside
from robode.config.validate import check_data
from robode.contracts import augmentations, families, perturbations
from robode.contracts import data as of_data
from robode.contracts.augmentations import Augmented
from robode.contracts.described import Described
from robode.contracts.families import KINDS, Family, fitting
from robode.contracts.perturbations import INFO, Case, hurried, refusal, scene_for
from robode.corruptions.perturbation import Perturbation
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data.augment import Augmentation
from robode.data.module import DataModule
from robode.data.validation import missing_files
from robode.errors import BadInput
from robode.foreign import reason
from robode.quantities.quantity import Quantity

BATCH = 100
NUMBERS = re.compile(r"-?\d[\d.e+-]*(, -?\d[\d.e+-]*)*|inf|nan")
Held = TypeVar("Held")
Contract = Callable[[Held], list[str]]


@dataclass(frozen=True)
class Finding:
    """what: was checked; contracts: that were held against it; violations: one line each; note: why something could
    not be checked."""

    what: str
    contracts: int
    violations: tuple[str, ...] = ()
    note: str = ""


def held(contracts: Sequence[Contract[Held]], case: Held) -> list[str]:
    """The violations of all contracts. Whatever a contract meets in somebody's code and was not expected is one too,
    with one line however many contracts meet it. The global generator of torch is where it was before."""
    found, raised = [], dict[str, list[str]]()
    for contract in contracts:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found += contract(case)
        except (Exception, SystemExit) as error:
            raised.setdefault(reason(error), []).append(contract.__name__.replace("_", " "))
    for what, (first, *others) in raised.items():
        found.append(f"{first}{f' (and {len(others)} more)' if others else ''}: {what}")
    return found


def findings(each: Described, package: str | None = None) -> list[Finding]:
    """One for each thing that a file describes. package: of a suite only the entries whose class is in it."""
    section = each.section
    if isinstance(section, Mapping):
        return [
            perturbation(f"suite={each.name}: {key}", part)
            for key, part in section.items()
            if part is not None and (package is None or inside(part.target, (package,)))
        ]
    said = described(each, section.name)
    if isinstance(section, DataConfig):
        found = [data(f"data={each.name}", section)]
    elif each.group == "augment":
        found = [augmentation(f"augment={each.name}", section)]
    else:
        found = in_families(each) if each.group == "model" else [carried(each)]
    return [replace(found[0], contracts=found[0].contracts + 1, violations=(*said, *found[0].violations)), *found[1:]]


def described(each: Described, name: str) -> list[str]:
    """A YAML file begins with one line about itself, for `robode list`, and what it describes has its name."""
    file, text = f"{each.group}/{each.name}.yaml", each.file.read_text(encoding="utf-8")
    found = [] if text.startswith("# ") else [f"{file}: expected a first line '# …' that says what it is"]
    if name != each.name:
        found.append(f"{file}: expected name: {each.name}, got {name}")
    return found


def in_families(each: Described) -> list[Finding]:
    """A family with each integrator that it lists."""
    found = []
    for config in each.configs:
        kinds, refusals = _kinds(config)
        what = f"model={each.name} integrator={config.integrator.name}"
        found.append(_held(what, kinds) if kinds else Finding(what, 1, refusals))
    return found


def carried(each: Described) -> Finding:
    """An integrator, an encoder or a head in the first of robode's families that takes it."""
    every: list[str] = []
    for config in each.configs:
        kinds, refusals = _kinds(config)
        if kinds:
            return _held(f"{each.group}={each.name} model={config.model.name}", kinds)
        every += refusals
    return Finding(f"{each.group}={each.name}", 1, tuple(dict.fromkeys(every)))


def _kinds(config: TrainConfig) -> tuple[dict[str, Family], tuple[str, ...]]:
    """By kind of data, a family that fits them; and the refusals of the others."""
    found, refusals = {}, []
    for kind, info in KINDS.items():
        try:
            found[kind] = fitting(Family(config.model, config.integrator, config.encoder, config.head, info))
        except Exception as error:
            refusals.append(reason(error))
    return found, tuple(dict.fromkeys(refusals))


def _held(what: str, kinds: Mapping[str, Family]) -> Finding:
    found = [(line, kind) for kind, family in kinds.items() for line in held(families.CONTRACTS, family)]
    return Finding(what, len(kinds) * len(families.CONTRACTS), told(found, len(KINDS)))


def told(found: Sequence[tuple[str, str]], kinds: int) -> tuple[str, ...]:
    """Violations, each with the kind of data that showed it, in one line for those that differ in their numbers alone:
    another layer, another level, another kind."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for line, kind in found:
        alike.setdefault(NUMBERS.sub("#", line), []).append((line, kind))
    lines = []
    for group in alike.values():
        first, *others = dict.fromkeys(line for line, _ in group)
        where = {kind for _, kind in group}
        more = f" (and {len(others)} more like it)" if others else ""
        lines.append(f"{first}{more}{f' ({group[0][1]})' if len(where) < kinds else ''}")
    return tuple(lines)


def augmentation(what: str, choice: Choice) -> Finding:
    """A change of training batches, of each kind of data that it does not refuse."""
    if not choice.target:
        return Finding(what, 0)
    try:
        augment = choice.build()
    except BadInput as error:
        return Finding(what, 0, (str(error),))
    if not isinstance(augment, Augmentation):
        return Finding(what, 1, (f"{type(augment).__name__} is no Augmentation",))
    kinds = [info for info in INFO.values() if augment.refusal(info) is None]
    found = [(line, "") for info in kinds for line in held(augmentations.CONTRACTS, Augmented(augment, info))]
    return Finding(what, len(kinds) * len(augmentations.CONTRACTS), told(found, 1))


def data(what: str, config: DataConfig) -> Finding:
    """A data set; only what it says of itself where its files are not there."""
    try:
        if (place := _missing_place(config)) is not None:
            return Finding(what, 0, (), f"not checked: {place}")
        check_data(config)
        source = config.source.arguments
        files = source.get("files") or ()
        assert isinstance(files, Sequence)
        missing = missing_files(str(source.get("root", ".")), [str(file) for file in files])
        module = DataModule.of(config, BATCH)
        info, said = module.info, config.info
        is_so = {"shape": list(info.shape), "task": info.task.name, "outputs": info.task.outputs}
        broken = held(of_data.INFO, module)
        if said is not None and {**is_so, **said} != is_so:
            broken.append(f"info is {said}, and the source says {is_so}")
        if broken or missing:
            note = (
                f"what it says of itself holds; {missing[0]} is not there, so that nothing else was checked"
                if missing
                else ""
            )
            return Finding(what, len(of_data.INFO), tuple(broken), note)
        module.prepare()
    except Exception as error:
        return Finding(what, len(of_data.INFO), (reason(error),))
    contracts = (*of_data.INFO, *of_data.SAMPLES)
    return Finding(what, len(contracts), tuple(held(of_data.SAMPLES, module)))


def _missing_place(config: DataConfig) -> str | None:
    """What is missing where a source is made of the user's own files, and they are not there."""
    allowed = config.allowed or {}
    for key in (key for key, spec in allowed.items() if str(spec).startswith(tuple(PLACES))):
        try:
            check_value(f"data.{key}", config.source.arguments.get(key), str(allowed[key]))
        except BadInput as error:
            return str(error)
    return None


def perturbation(what: str, part: Part) -> Finding:
    """An entry of a suite under each protocol and for each kind of data that it makes sense for."""
    try:
        each = part.build()
    except BadInput as error:
        return Finding(what, 0, (str(error),))
    if isinstance(each, Quantity):
        return Finding(what, 0, (), "a quantity, which nothing is promised of")
    if not isinstance(each, Perturbation):
        return Finding(what, 1, (f"{type(each).__name__} is neither a Perturbation nor a Quantity",))
    each, count, broken, refused = hurried(each), 0, list[tuple[str, str]](), dict[str, None]()
    for protocol in (DataSpace(), ChNode2022()):
        for kind, info in INFO.items():
            if (why := refusal(each, protocol, info)) is not None:
                refused[why] = None
                continue
            count += len(perturbations.CONTRACTS)
            broken += [(line, "") for line in held(perturbations.CONTRACTS, Case(each, scene_for(kind, protocol)))]
    return Finding(what, count, told(broken, 1), "" if count else f"not checked: {'; '.join(refused)}")
