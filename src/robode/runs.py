"""A run is a folder: who makes it, how it is named, found again and described.

outputs/<experiment>/<run>/{config.yaml, status.json, environment.json, best.ckpt, last.ckpt, metrics.csv,
                            bsm.csv, results.csv, samples.npz, figures/, report.html}
"""

from __future__ import annotations

import copy
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from robode.errors import BadInput, JobFailed
from robode.instantiate import check_targets, to_plain

OUTPUTS = Path("outputs")
# Keys that do not change what is computed: where files are, what the run is called, who listens.
VOLATILE = ("run", "resume", "logger")


@dataclass(frozen=True)
class Run:
    """The folder of one training, and the files in it that are not tables."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    def config(self) -> DictConfig:
        """The resolved configuration of its training. Raises `BadInput` if it is damaged or not safe."""
        path = self.folder / "config.yaml"
        try:
            config = OmegaConf.load(path)
        except Exception as error:  # OmegaConf, YAML and the disk each raise their own
            raise BadInput(
                f"{path}: expected the YAML of a run ({type(error).__name__}); is the file damaged?"
            ) from error
        if not isinstance(config, DictConfig):
            raise BadInput(f"{path}: expected the YAML of a run, got a {type(config).__name__}")
        check_targets(config)
        if (named := _J_file(config)) and (copied := self.folder / f"J{named.suffix}").is_file():
            config.model.J_file = str(copied)
        return config

    def save_config(self, config: Any) -> None:
        """Write config.yaml, resolved. Raises `JobFailed` if the disk refuses."""
        write_text(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_plain(config))))

    def status(self) -> dict[str, Any]:
        """status.json: status (running, done, failed, interrupted), epoch, step, warnings, error."""
        return read_json(self.folder / "status.json")

    def update(self, **changes: Any) -> None:
        """Change entries of status.json. Raises `JobFailed` if the disk refuses."""
        write_json(self.folder / "status.json", {**self.status(), **changes})

    def warn(self, text: str) -> bool:
        """Remember a warning; False if it was there already."""
        warnings = self.status().get("warnings", [])
        if text in warnings:
            return False
        self.update(warnings=[*warnings, text])
        return True


def create(config: DictConfig, outputs: Path = OUTPUTS) -> Run:
    """A new run folder with config.yaml and status.json; no other job can get the same one.

    Raises:
        BadInput: the name in `run` is taken or is no name.
        JobFailed: the folder cannot be written.
    """
    plain = to_plain(config)
    name = plain.get("run")
    check_name(name)
    parent = outputs / str(plain.get("experiment") or "default")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        run = Run(_claim(parent, str(name)) if name is not None else _claim_free(parent, run_id(plain)))
    except FileExistsError:
        raise BadInput(
            f"run={name}: {parent / str(name)} is there already; choose another name or resume={name}"
        ) from None
    except OSError as error:
        raise JobFailed(f"cannot write {error.filename or parent}: {error.strerror}") from error
    run.save_config(plain)
    if J := _J_file(plain):  # the original may move or change
        try:
            shutil.copyfile(J, run.folder / f"J{J.suffix}")
        except OSError as error:
            raise JobFailed(f"cannot write {run.folder}/J{J.suffix}: {error.strerror}") from error
    run.update(status="running", epoch=0, step=0, warnings=[])
    return run


def check_name(name: str | None) -> None:
    """A run's name becomes a folder's. Raises `BadInput`."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", str(name)):
        raise BadInput(f"run: expected a name of letters, digits, '.', '_' and '-', got '{name}'")


def _J_file(config: Mapping[Any, Any]) -> Path | None:
    """The file that model.J_file names, if it does."""
    name = (config.get("model") or {}).get("J_file")
    return Path(name) if name else None


def _claim(parent: Path, name: str) -> Path:
    (parent / name).mkdir()  # fails if another job was first
    return parent / name


def _claim_free(parent: Path, name: str) -> Path:
    number = 1
    while True:
        try:
            return _claim(parent, name if number == 1 else f"{name}-{number}")
        except FileExistsError:
            number += 1


def run_id(plain: Mapping[str, Any]) -> str:
    """<model>-N<depth>-s<seed>-<hash of the configuration>, the name of a run that was given none."""
    return f"{plain['model']['name']}-N{plain['depth']}-s{plain['seed']}-{config_hash(plain)[:8]}"


def config_hash(plain: Mapping[str, Any]) -> str:
    """SHA-256 of a plain configuration without the keys that do not change what is computed."""
    kept = {key: copy.deepcopy(value) for key, value in plain.items() if key not in VOLATILE}
    if isinstance(kept.get("data"), dict):
        kept["data"].pop("root", None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def find(where: str | Path, key: str = "run", outputs: Path = OUTPUTS) -> tuple[Run, str | None]:
    """The run that `where` means (folder, run id under outputs/ or checkpoint) and the checkpoint's name.

    key: the configuration key to name in a complaint.

    Raises:
        BadInput: there is no such run, several, or the folder is not one.
    """
    path = Path(where)
    if path.is_file():
        folder, checkpoint = path.parent, path.name
    else:
        folder, checkpoint = (path if path.is_dir() else _search(str(where), key, outputs)), None
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{key}={where}: expected the folder of a run, but there is no config.yaml in {folder}")
    return Run(folder), checkpoint


def _search(name: str, key: str, outputs: Path) -> Path:
    known = outputs.glob(f"**/{glob.escape(name)}/config.yaml") if re.fullmatch(r"[\w.\-/]+", name) else ()
    matches = sorted(path.parent for path in known)
    if not matches:
        raise BadInput(f"{key}={name}: expected a run folder, the name of a run under {outputs}/ or a .ckpt file")
    if len(matches) > 1:
        raise BadInput(f"{key}={name}: several runs have this name: {', '.join(map(str, matches))}; give the folder")
    return matches[0]


def checkpoint_path(run: Run, name: str) -> Path:
    """best.ckpt, last.ckpt or another file of the run. best falls back to last: no validation data, no best.

    Raises:
        BadInput: the run has no such checkpoint.
    """
    path = run.folder / (name if name.endswith(".ckpt") else f"{name}.ckpt")
    if path == run.best and not path.is_file():
        path = run.last
    if not path.is_file():
        saved = ", ".join(sorted(p.name for p in run.folder.glob("*.ckpt"))) or "none yet: finish its first epoch"
        raise BadInput(f"checkpoint={name}: run {run.id} has no such checkpoint (it has {saved})")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty if there is no file or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new, never half. Raises `JobFailed`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise JobFailed(f"cannot write {path}: {error.strerror}") from error
