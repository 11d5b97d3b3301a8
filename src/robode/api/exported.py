"""The folder that `robode export` writes, read again: a network from its configuration and its safetensors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robode.api.certification import FILE
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.request import Described
from robode.files import read_json
from robode.foreign import reason
from robode.network import Network, build_network, weights_digest
from robode.runs.code import network_code, same
from robode.runs.origin import ANY, OTHER_CODE
from robode.runs.run import Run
from robode.tasks.classification import Classification
from robode.tasks.regression import Regression

WEIGHTS, DATA = "model.safetensors", "data.json"
PROGRAM, SAMPLE, LOADER, README = "program.pt2", "sample.pt", "load.py", "README.md"


def is_export(folder: Path) -> bool:
    """Whether a folder is one that `robode export` has written: weights with a configuration, and no run."""
    return all((folder / name).is_file() for name in (WEIGHTS, "config.yaml")) and not (folder / "status.json").exists()


def network_of_export(folder: Path, code: str) -> tuple[Network, str]:
    """The network of an export on the CPU, and one line with a dagger where other code made it and `code` is "any".

    Raises:
        BadInput: safetensors is not installed, a damaged folder, weights that are not those of the certificate, or
            other code than "same" asks for.
    """
    if find_spec("safetensors") is None:
        raise BadInput(f"{folder}: needs the package safetensors, which is not installed: pip install 'robode[export]'")
    from safetensors.torch import load_file  # an extra

    config, known = Run(folder).config(), read_json(folder / FILE)
    note = _check_code(folder, str(known.get("code", "")), network_code(Described.of(config).nodes), code)
    network = build_network(config, _info(folder) or DataModule.of(config.data, config.batch_size, config.seed).info)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # safetensors, torch and the disk each raise their own
        raise BadInput(f"{folder / WEIGHTS}: holds no network of config.yaml ({reason(error)})") from error
    if weights_digest(network) != known.get("weights"):
        raise BadInput(f"{folder}: {WEIGHTS} holds other weights than those that {FILE} is about; export the run again")
    return network, note


def described(info: DatasetInfo) -> dict[str, Any] | None:
    """What data.json says of data, for JSON: enough for a network where their files are not. None for tasks that know
    more; the data of those say it without files."""
    about = {"shape": list(info.shape), "bounds": None if info.bounds is None else list(info.bounds)}
    if type(info.task) is Classification:
        return {**about, "class_names": list(info.task.class_names)}
    if type(info.task) is Regression:
        return {**about, "outputs": info.task.outputs, "unit": info.task.unit}
    return None


def _info(folder: Path) -> DatasetInfo | None:
    """What data.json says; mean and std are in the weights. None without the file. Raises `BadInput` if it is
    damaged."""
    if not (folder / DATA).is_file():
        return None
    known = read_json(folder / DATA)
    try:
        shape, names = tuple(map(int, known["shape"])), known.get("class_names")
        task = Classification(tuple(map(str, names))) if names else Regression(int(known["outputs"]), known["unit"])
        bounds = None if known["bounds"] is None else (float(known["bounds"][0]), float(known["bounds"][1]))
        if len(shape) not in (1, 3) or min(shape) < 1 or task.outputs < 1:
            raise ValueError(f"shape {shape}, {task.outputs} outputs")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{folder / DATA}: damaged ({reason(error)}); export the run again") from error
    return DatasetInfo(shape, (0.0,) * shape[0], (1.0,) * shape[0], bounds, task)


def _check_code(folder: Path, there: str, here: str, code: str) -> str:
    if same(there, here):
        return ""
    made = f"export {folder} was made by other code (digest {there or 'unknown'}, this code has {here})"
    if code == ANY:
        return f"{OTHER_CODE} {made}"
    raise BadInput(f"{made}; code=any uses it all the same, {PROGRAM} and {LOADER} need none of it")
