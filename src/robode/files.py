"""Files that are always whole: a reader sees the old content or the new, never half, and after a power cut too."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from robode.errors import JobFailed


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty if there is no file or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step. Raises `JobFailed` if the disk refuses."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 file in one step. Raises `JobFailed` if the disk refuses."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step. Raises `JobFailed` if the disk refuses."""
    write_whole(path, lambda draft: draft.write_bytes(content))


def replace_by_copy(source: Path, target: Path) -> None:
    """Replace a file by another one's content in one step. Raises `JobFailed` if the disk refuses."""
    write_whole(target, lambda draft: shutil.copyfile(source, draft))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden neighbour of the file, put that onto the disk, and rename it. Whatever stops this, the
    file is as it was, and the neighbour is gone unless the process is.

    Raises:
        JobFailed: the disk is full, or the folder is not there or cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """With those that it lies in; one that is there already stays. Raises `JobFailed` if the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobFailed(f"cannot write {error.filename or folder}: {error.strerror}") from error
