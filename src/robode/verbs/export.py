"""`robode export`: a trained network for other programs: weights as safetensors, certificate, configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from robode import __version__
from robode.certificates.radius import constants
from robode.data.module import DataModule
from robode.errors import BadInput, JobFailed
from robode.evaluation.target import of_run
from robode.files import read_json, write_json
from robode.report.style import write_whole
from robode.runs.origin import check_data
from robode.runs.run import Run
from robode.verbs.certify import FILE, certificate

MEASURED = ("split", "data_digest", "clean", "certified", "smoothing")  # of the run's own certificate


def run_export(cfg: DictConfig) -> dict[str, Any]:
    """Write model.safetensors, certificate.json and config.yaml of `cfg.run` into the folder `cfg.to`.

    The constants are worked out anew, in float64; the certified accuracy is that of `robode certify`, where it was run
    for these weights and by this code.

    Returns:
        run and to (folders).

    Raises:
        BadInput: no such run or checkpoint, one that other code trained (unless `cfg.code` is "any"), or data that are
            not those of the run.
        JobFailed: the disk refuses.
    """
    from safetensors.torch import save  # an extra; robode.config.validate says so where it is absent

    found, to = of_run(cfg), Path(cfg.to)
    _check_data(found.run, found.data)
    content = certificate(found, constants(found.network, found.data.info.shape))
    known = read_json(found.run.folder / FILE)
    if all(known.get(name) == content[name] for name in ("weights", "code")):
        content |= {name: known[name] for name in MEASURED if name in known}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in found.network.state_dict().items()}
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobFailed(f"cannot write {error.filename or to}: {error.strerror}") from error
    about = {"robode": __version__, "weights": content["weights"]}
    write_whole(to / "model.safetensors", lambda path: path.write_bytes(save(tensors, metadata=about)))
    write_json(to / FILE, content)
    write_whole(to / "config.yaml", lambda path: shutil.copyfile(found.run.folder / "config.yaml", path))
    for line in filter(None, [found.note, f"exported: {to}"]):
        Console().print(line, highlight=False, soft_wrap=True)
    return {"run": str(found.run.folder), "to": str(to)}


def _check_data(run: Run, data: DataModule) -> None:
    """Weights are exported without their data, too; where there are data, they must be those of the run."""
    try:
        data.prepare()
    except BadInput:  # not on this machine
        return
    check_data(run, data.digest)
