"""Small files that are always whole: a reader sees the old content or the new, never half."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from robode.errors import JobFailed


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty if there is no file or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step. Raises `JobFailed` if the disk refuses."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step. Raises `JobFailed` if the disk refuses."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise JobFailed(f"cannot write {path}: {error.strerror}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour, then rename it: readers never see half a file.

    Raises:
        JobFailed: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
