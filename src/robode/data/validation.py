"""Whether the files of a data set are there and whole; no torch, so that the command line can refuse early."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from robode.config.config import Node
from robode.errors import BadInput, DataMissing

NETWORK_TIMEOUT = 3.0
"""Seconds after which a silent server counts as no network."""


def check_files(source: Node) -> None:
    """Refuse truncated files of a source, or missing ones and no network. source: the arguments of its class."""
    files, root = source.get("files"), str(source.get("root", "."))
    missing = missing_files(root, list(map(str, files)) if isinstance(files, Sequence) else ())
    if missing and not reachable(str(source.get("url", ""))):
        raise cannot_download(root, missing)


def missing_files(root: str | Path, files: Sequence[str]) -> list[str]:
    """Those of `files` (below `root`) that are not there. BadInput if one that is there is truncated."""
    missing = []
    for name in files:
        path = Path(root, name).expanduser()
        try:
            if path.is_file():
                _check_complete(path)
            else:
                missing.append(name)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); check data.root") from error
    return missing


def reachable(url: str) -> bool:
    """Whether the file at `url` answers within NETWORK_TIMEOUT seconds; proxy settings are respected."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT) as reply:
            return bool(reply.status < 400)
    except (OSError, ValueError):
        return False


def cannot_download(root: str | Path, missing: Sequence[str]) -> DataMissing:
    """The one line for files that are neither on the disk nor on a network that answers."""
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return DataMissing(
        f"data.root={root}: {missing[0]}{more} not found and cannot be downloaded; "
        "set data.root or the environment variable ROBODE_DATA to the folder that holds the data"
    )


def _check_complete(path: Path) -> None:
    """Compare the size of an IDX file with its own header; any other file only must not be empty."""
    with path.open("rb") as file:
        header = file.read(16)
    size = path.stat().st_size
    expected = 1
    if path.name.endswith("-ubyte"):
        axes = header[3] if len(header) > 3 else 0
        sizes = [int.from_bytes(header[4 * i + 4 : 4 * i + 8], "big") for i in range(axes)]
        expected = 4 + 4 * axes + math.prod(sizes)
        if header[:3] != b"\0\0\x08" or axes not in (1, 3):
            raise BadInput(f"{path}: is not an IDX file of bytes; delete it or change data.root (ROBODE_DATA)")
    if size < expected or path.name.endswith("-ubyte") and size != expected:
        raise BadInput(
            f"{path}: truncated or damaged, {size} bytes where {expected} were expected; "
            "delete it to download it again, or change data.root (ROBODE_DATA)"
        )
