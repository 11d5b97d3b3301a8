"""On what a run ran: enough to repeat it, nothing that names the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from robode.files import read_json, write_json
from robode.identity import config_hash
from robode.runs import Run

FILE = "environment.json"
# What the numbers in a run folder depend on; tables, figures and the command line are not among it.
DECISIVE = ("data", "fields", "objectives", "ode", "robustness", "training", "network.py", "measurement.py")
PACKAGES = ("robode", "torch", "lightning", "hydra-core", "omegaconf", "numpy", "torchdiffeq")


def threads_of(run: Run) -> int | None:
    """How many threads the run's last session used; None where it is not known."""
    threads = read_json(run.folder / FILE).get("threads")
    return threads if isinstance(threads, int) else None


def record(run: Run, config: Mapping[str, Any], data_digest: str) -> None:
    """Write environment.json: versions, commit, threads, device, command, hashes. Earlier sessions are kept.

    Raises:
        JobFailed: the disk refuses.
    """
    import torch

    path = run.folder / FILE
    before = read_json(path)
    earlier = before.pop("earlier", {})
    if before:
        kept = ("started", "wall_seconds", "argv", "threads", "device", "commit", "dirty")
        earlier[str(len(earlier) + 1)] = {key: before[key] for key in kept if key in before}
    gpu = config["trainer"]["accelerator"] == "gpu"
    content: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wall_seconds": None,
        "argv": relative_argv(sys.argv),
        **git_state(),
        "code": code_digest(),
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
def code_digest() -> str:
    """12 hexadecimal digits of the sources that decide a result: equal for runs that the same code has made."""
    package = Path(__file__).parent
    digest = sha256()
    for folder in DECISIVE:
        for path in sorted((package / folder).rglob("*.py")) or [package / folder]:
            digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def other_code(run: Run) -> bool:
    """Whether other sources than these trained the run; a commit that only touches figures does not count."""
    return bool(read_json(run.folder / FILE).get("code") != code_digest())


@cache
def git_state() -> dict[str, Any]:
    """commit and dirty of the checkout that this source file is tracked in; empty for an installed wheel."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return {"commit": "", "dirty": None}
    return {
        "commit": _git(here.parent, "rev-parse", "HEAD") or "",
        "dirty": bool(_git(here.parent, "status", "--porcelain", "--untracked-files=no")),
    }


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
