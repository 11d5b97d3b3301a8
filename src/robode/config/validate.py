"""What a composed configuration must satisfy before torch is imported: one sentence for each mistake.

Constructors check their own arguments again; these checks only make the common mistakes cheap to find.
"""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robode.config.allowed import check_node
from robode.config.combinations import check_combination
from robode.config.instantiate import check_targets, to_plain
from robode.config.levels import UPPER, check_suite, noise_levels
from robode.config.seeds import chosen
from robode.data.validation import check_data
from robode.device import check_device
from robode.errors import BadInput
from robode.runs.origin import CODES, FORCE, START, check_code
from robode.runs.run import OUTPUTS, Run, check_free, check_name, find

POSITIVE = ("depth", "epochs", "batch_size", "lr", "repeats", "limit")
CHECKPOINTS = ("best", "last")
SPLITS = ("test", "validation", "train")
INTERVALS = ("epoch", "step")
# Loggers of Lightning's that are importable without the package they write with: any one of these will do.
LOGGERS = {"TensorBoardLogger": ("tensorboard", "tensorboardX")}


def check_jobs(verb: str, jobs: Sequence[DictConfig]) -> None:
    """Refuse a command line as a whole if one of its jobs cannot work, or two would be the same run.

    Raises:
        BadInput: see `check`.
    """
    names = []
    for cfg in jobs:
        check(verb, cfg)
        if verb == "train" and cfg.run is not None and cfg.resume is None:
            names.append((cfg.experiment, cfg.run))
    for experiment, run in names:
        if names.count((experiment, run)) > 1:
            raise BadInput(
                f"run={run}: {names.count((experiment, run))} jobs of this sweep would be the run {experiment}/{run}; "
                "leave run out, or give each job a name of its own"
            )


def check(verb: str, cfg: DictConfig) -> None:
    """Refuse a configuration that cannot work. verb: one of ``schema.SCHEMAS``; cfg: without the ``hydra`` node.

    Raises:
        BadInput: one line saying what was expected, what came and which key to change.
    """
    plain = to_plain(cfg)
    _check_choice("code", plain.get("code", CODES[0]), CODES)
    _check_counts(plain)
    if verb != "export":
        _check_suites(plain)
    if verb == "train":
        _check_time(plain)
        _check_model(plain)
        check_optimizer(plain["optimizer"])
        check_loggers(plain["logger"])
        _entries("objective", plain["objective"])
        check_data(plain["data"])
        _check_seeds(plain)
        if plain["resume"] is not None:
            check_code(find(plain["resume"], key="resume")[0], plain["code"], START)
        else:
            _check_run(plain)
            check_monitors(plain)
    else:
        _check_choice("split", plain.get("split", "test"), SPLITS)
        if verb == "certify":
            _check_certify(plain)
        if verb != "export":
            check_device(plain.get("device", "auto"))
        _check_subject(verb, plain)
        if verb == "export":
            _check_export(plain)
    check_targets(plain)


def _check_subject(verb: str, plain: Mapping[str, Any]) -> None:
    """A run; or, with `module`, a network of the user's with a file of weights and a data set."""
    module, run, checkpoint = plain.get("module"), plain["run"], plain["checkpoint"]
    if module is None:
        if run == "???":
            raise BadInput(f"run: expected the run to {verb}, for example run=outputs/default/NAME")
        _check_choice("checkpoint", checkpoint, CHECKPOINTS)
        if "name" in plain.get("data", {}):
            raise BadInput(f"data={plain['data']['name']}: a run has its own data; leave it out (data.root may be set)")
        check_code(find(run)[0], plain["code"])
        return
    if run != "???":
        raise BadInput(f"run={run} and module={module}: give one of them")
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", str(module)):
        raise BadInput(f"module={module}: expected PACKAGE:FACTORY, for example module=mypackage.networks:make")
    if not Path(str(checkpoint)).is_file():
        raise BadInput(f"checkpoint={checkpoint}: expected the file with the weights of module={module}")
    if "name" not in plain["data"]:
        raise BadInput(f"data: expected the data set for module={module}, for example data=mnist5k")
    check_data(plain["data"])


def _check_certify(plain: Mapping[str, Any]) -> None:
    if plain["norm"] != "l2":
        raise BadInput(f"norm={plain['norm']}: choose l2; its radius r holds for l1 too, and r/sqrt(d) for linf")
    if "certified" not in plain["suite"]:
        raise BadInput("suite: expected the suite certified among others, for example suite=[certified,smoothing]")
    if plain["radii"] is not None:
        noise_levels("radii", plain["radii"], UPPER["radii"])


def _check_export(plain: Mapping[str, Any]) -> None:
    if plain["to"] == "???":
        raise BadInput("to: expected the folder to write, for example to=exported")
    if Path(plain["to"]).is_file():
        raise BadInput(f"to={plain['to']}: expected a folder, and this is a file")
    if find_spec("safetensors") is None:
        raise BadInput("export: needs the package safetensors, which is not installed: pip install 'robode[export]'")


def check_optimizer(optimizer: Mapping[str, Any]) -> None:
    """Refuse an `optimizer` section whose scheduler would never move."""
    _check_choice("optimizer.interval", optimizer.get("interval", "epoch"), INTERVALS)


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Refuse a `logger` section with an entry that is none, or that needs a package which is not installed."""
    for name, node in _entries("logger", loggers):
        needs = LOGGERS.get(str(node["_target_"]).rpartition(".")[2], ())
        if needs and not any(map(find_spec, needs)):
            raise BadInput(f"logger={name}: needs the package {needs[0]}, which is not installed; install it")


def check_monitors(plain: Mapping[str, Any]) -> None:
    """Refuse callbacks that watch validation data where `data.validation` holds none out."""
    validation = plain["data"].get("validation", 0)
    for name, node in _entries("callbacks", plain["callbacks"]):
        monitor = str(node.get("monitor"))
        if monitor.startswith("validation/") and not validation:
            raise BadInput(
                f"callbacks={name}: watches {monitor}, and data.validation=0 holds nothing out; "
                "change data.validation or leave the callback out"
            )


def _entries(group: str, section: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Entries of a group that are not switched off by null."""
    found = [(name, node) for name, node in section.items() if node is not None]
    for name, node in found:
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise BadInput(f"{group}.{name}={node}: expected a node with a _target_, or null to switch it off")
    return found


def _check_seeds(plain: Mapping[str, Any]) -> None:
    if plain.get("seeds") is None:
        return
    chosen(plain["seeds"])
    for key in ("run", "resume"):
        if plain[key] is not None:
            raise BadInput(
                f"{key}={plain[key]}: names one run, and seeds={plain['seeds']} asks for several; leave one out"
            )


def _check_run(plain: Mapping[str, Any]) -> None:
    """A chosen name may be that of a run which is there already, if it is the same training."""
    name, experiment = plain["run"], plain["experiment"]
    if name is not None:
        check_name(name)
        check_free(OUTPUTS / experiment / name, plain)
        if not plain["force"] and (run := Run(OUTPUTS / experiment / name)).exists:
            check_code(run, plain["code"], FORCE)


def _check_counts(plain: Mapping[str, Any]) -> None:
    for key in POSITIVE:
        everything = key == "limit" and plain.get(key) is None
        if key in plain and not everything and not _positive(plain[key]):
            raise BadInput(f"{key}={plain[key]}: expected a number above 0")
    seed = plain.get("seed")
    if seed is not None and not 0 <= seed < 2**32:
        raise BadInput(f"seed={seed}: expected an integer from 0 to 2**32 - 1")


def _check_time(plain: Mapping[str, Any]) -> None:
    """Exactly one of ``step`` and ``horizon`` is a number, or step is ``auto``."""
    step, horizon = plain["step"], plain["horizon"]
    if step != "auto" and not _positive(step):
        raise BadInput(f"step={step}: expected 'auto' or a number above 0")
    if horizon is not None and not _positive(horizon):
        raise BadInput(f"horizon={horizon}: expected a number above 0")
    if horizon is not None and step != "auto":
        raise BadInput(f"step={step} and horizon={horizon}: give one of them (step=auto is none)")


def _check_model(plain: Mapping[str, Any]) -> None:
    for group in ("model", "integrator", "encoder", "head"):
        check_node(group, plain.get(group) or {})
    check_combination(plain)
    model, integrator = plain["model"], plain["integrator"]["name"]
    supported = model.get("integrators")
    if supported and integrator not in supported:
        raise BadInput(
            f"integrator={integrator}: makes no sense for model={model['name']}; choose one of: {', '.join(supported)}"
        )


def _check_choice(key: str, value: Any, choices: Sequence[object]) -> None:
    if not any(type(value) is type(choice) and value == choice for choice in choices):  # 1 == True
        shown = ", ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices)
        raise BadInput(f"{key}={value}: choose one of: {shown}")


def _check_suites(plain: Mapping[str, Any]) -> None:
    if not isinstance(plain["suite"], Mapping) or not plain["suite"]:
        raise BadInput("suite: expected at least one perturbation; choose a suite, for example suite=noise")
    _entries("suite", plain["suite"])
    check_suite(plain["suite"])


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
