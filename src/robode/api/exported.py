"""The folder that `robode export` writes, read again: a network from its configuration and its safetensors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from robode.api.certification import FILE
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.request import Described
from robode.files import read_json
from robode.foreign import reason
from robode.network import Network, build_network, weights_digest
from robode.runs.code import network_code, same
from robode.runs.origin import ANY, OTHER_CODE
from robode.runs.run import Run

WEIGHTS, PROGRAM, SAMPLE, LOADER, README = "model.safetensors", "program.pt2", "sample.pt", "load.py", "README.md"


def is_export(folder: Path) -> bool:
    """Whether a folder is one that `robode export` has written: weights with a configuration, and no run."""
    return all((folder / name).is_file() for name in (WEIGHTS, "config.yaml")) and not (folder / "status.json").exists()


def network_of_export(folder: Path, code: str) -> tuple[Network, str]:
    """The network of an export on the CPU, and one line with a dagger where other code made it and `code` is "any".

    Raises:
        BadInput: safetensors is not installed, a damaged folder, weights that are not those of the certificate, other
            code than "same" asks for, or data of the user's own whose files alone say how large a sample is.
    """
    if find_spec("safetensors") is None:
        raise BadInput(f"{folder}: needs the package safetensors, which is not installed: pip install 'robode[export]'")
    from safetensors.torch import load_file  # an extra

    config, known = Run(folder).config(), read_json(folder / FILE)
    note = _check_code(folder, str(known.get("code", "")), network_code(Described.of(config).nodes), code)
    try:
        info = DataModule.of(config.data, config.batch_size, config.seed).info
    except BadInput as error:  # of the user's own, which say themselves how large a sample is
        raise BadInput(f"{error}; {PROGRAM} and {LOADER} need no data") from error
    network = build_network(config, info)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # safetensors, torch and the disk each raise their own
        raise BadInput(f"{folder / WEIGHTS}: holds no network of config.yaml ({reason(error)})") from error
    if weights_digest(network) != known.get("weights"):
        raise BadInput(f"{folder}: {WEIGHTS} holds other weights than those that {FILE} is about; export the run again")
    return network, note


def _check_code(folder: Path, there: str, here: str, code: str) -> str:
    if same(there, here):
        return ""
    made = f"export {folder} was made by other code (digest {there or 'unknown'}, this code has {here})"
    if code == ANY:
        return f"{OTHER_CODE} {made}"
    raise BadInput(f"{made}; code=any uses it all the same, {PROGRAM} and {LOADER} need none of it")
