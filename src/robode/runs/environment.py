"""On what a run ran: enough to repeat it, nothing that names the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robode.files import read_json, write_json
from robode.runs import code as code_digest
from robode.runs.identity import config_hash
from robode.runs.run import Run

FILE = code_digest.RECORD
PACKAGES = ("robode", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "torchdiffeq")


def threads_of(run: Run) -> int | None:
    """How many threads the run's last session used; None where it is not known."""
    threads = read_json(run.folder / FILE).get("threads")
    return threads if isinstance(threads, int) else None


def record(run: Run, config: Mapping[str, Any], data_digest: str) -> None:
    """Write environment.json: versions, commits, threads, device, command, digests. Earlier sessions are kept.

    A session that goes on from the weights of other code makes a run of both, which is nobody's own any more.

    Raises:
        JobFailed: the disk refuses.
    """
    import torch

    path = run.folder / FILE
    before = read_json(path)
    code = code_digest.training_code(config)
    if run.of_other_code(config):
        code = f"{before.get(code_digest.CODE) or 'unknown'}+{code}"
    earlier = before.pop("earlier", {})
    if before:
        kept = ("started", "wall_seconds", "argv", "threads", "device", "commit", "dirty", code_digest.CODE)
        earlier[str(len(earlier) + 1)] = {key: before[key] for key in kept if key in before}
    gpu = config["trainer"]["accelerator"] == "gpu"
    content: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wall_seconds": None,
        "argv": relative_argv(sys.argv),
        **git_state(),
        **_packages(code_digest.packages(config)),
        code_digest.CODE: code,
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "precision": str(config["trainer"]["precision"]),
        "config_hash": config_hash(config),
        "data_digest": data_digest,
    }
    write_json(path, content | ({"earlier": earlier} if earlier else {}))


def finish(run: Run, began: float) -> None:
    """Write down how long this session has trained. began: time.monotonic() at the start."""
    path = run.folder / FILE
    write_json(path, read_json(path) | {"wall_seconds": round(time.monotonic() - began, 3)})


def relative_argv(argv: Sequence[str]) -> list[str]:
    """The command line with absolute paths made relative to the working folder."""
    return ["robode", *(_relative(word) for word in argv[1:])]


def _relative(word: str) -> str:
    key, separator, value = word.rpartition("=")
    return f"{key}{separator}{os.path.relpath(value)}" if os.path.isabs(value) else word


@cache
def git_state(file: Path = Path(__file__)) -> dict[str, Any]:
    """commit and dirty of the checkout that a source file is tracked in; empty for an installed wheel. A new file that
    git does not know yet makes a checkout dirty, unless it is ignored."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return {"commit": "", "dirty": None}
    return {
        "commit": _git(file.parent, "rev-parse", "HEAD") or "",
        "dirty": bool(_git(file.parent, "status", "--porcelain", "--untracked-files=normal")),
    }


def _packages(names: Sequence[str]) -> dict[str, Any]:
    """commit and dirty of the packages of others, where git has them: {"packages": …}, or nothing."""
    states = {name: git_state(file) for name in names if (file := _own_file(name))}
    known = {name: state for name, state in states.items() if state["commit"]}
    return {"packages": known} if known else {}


def _own_file(package: str) -> Path | None:
    """A source file of a package, found without importing it."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    return next((file for place in spec.submodule_search_locations or () for file in Path(place).glob("*.py")), None)


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # robode itself, run from its source
            continue
    return found
