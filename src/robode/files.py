"""Files that are always whole: a reader sees the old content or the new, never half, and after a power cut too."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any

from robode.errors import JobFailed

DRAFT = re.compile(r"\..+\.(\d+)\.\d+")  # the name of what `write_whole` fills; the group is the process
CHUNK = 1 << 16  # bytes that are read at once
OLD = 60.0  # seconds after which what no process of this machine has is nobody's on another one either


def read_text(path: Path | str) -> str:
    """A UTF-8 file with few calls of the system, which is what reading ten thousand small ones takes.

    Raises:
        OSError, UnicodeError: there is no such file, it cannot be read, or is no text.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, CHUNK):  # less than was asked for is not yet the end, on some file systems
            parts.append(part)
    finally:
        os.close(file)
    return b"".join(parts).decode()


def read_json(path: Path | str) -> dict[str, Any]:
    """An object from a JSON file; empty if there is no file or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(read_text(path))
        if isinstance(content, dict):
            return content
    return {}


def read_entries(path: Path | str, kinds: Mapping[str, type | UnionType]) -> dict[str, Any]:
    """`read_json` of a file that may come from anybody: the entries that have a kind, and are of it."""
    found = read_json(path)
    return {name: found[name] for name, kind in kinds.items() if name in found and isinstance(found[name], kind)}


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
    file is as it was, and the neighbour is gone unless the process is (`clear_drafts`). A link is replaced, never
    written through.

    Raises:
        JobFailed: the disk is full, or the folder is not there or cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        write(draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def clear_drafts(folder: Path) -> None:
    """Remove what `abandoned` finds in a folder."""
    for path in abandoned(folder):
        with suppress(OSError):
            path.unlink()


def abandoned(folder: Path) -> Iterator[Path]:
    """What processes that were killed in `write_whole` have left in a folder."""
    for path in folder.glob(".*"):
        with suppress(OSError):
            if (draft := DRAFT.fullmatch(path.name)) and not _runs(int(draft[1])):
                if time.time() - path.lstat().st_mtime > OLD:
                    yield path


def _runs(process: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def make_folder(folder: Path, parents: bool = True) -> None:
    """With those that it lies in, unless these must be there; one that is there already stays. Raises `JobFailed` if
    the disk refuses."""
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise JobFailed(f"cannot write {error.filename or folder}: {error.strerror}") from error


def try_folder(folder: Path) -> None:
    """Make a folder and something in it, and leave nothing of both. Raises `OSError` where that cannot be done."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=folder))
    finally:
        for path in new:
            with suppress(OSError):
                path.rmdir()
