"""`robode init FOLDER`: a small project of the user's own, whose commands work as they stand."""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from robode.config.paths import template_dir
from robode.errors import BadInput, JobFailed

STANDS_FOR = "my_lab"  # in the names and the texts of the template: the package
RENAMED = {"gitignore": ".gitignore"}  # a hidden file of the template's would hide other files of it from git
HELP = """\
usage: robode init FOLDER [name=PACKAGE]

Make a small project in a new or empty folder: a package with a family and a data set, their YAML, an experiment, a
paper whose table `robode reproduce` makes, tests, a README with the commands, and a pyproject.toml. `robode check`
accepts it as it stands; change the parts one by one.

  name=PACKAGE               the name of the package; the default is that of the folder, in small letters with _
"""


def run_init(words: Sequence[str]) -> int:
    """Write the project and say what to do next.

    Returns:
        0.

    Raises:
        BadInput: no folder or one that is not empty, or a name that no package can have; nothing is written.
        JobFailed: the disk refuses; what had been written is removed.
    """
    places = [word for word in words if not word.startswith("name=")]
    names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
    if len(places) != 1 or len(names) > 1:
        raise BadInput(f"robode init: expected one folder and maybe name=PACKAGE, got {' '.join(words) or 'nothing'}")
    folder = Path(places[0]).expanduser()
    _check_folder(folder)
    package = _checked(names[0]) if names else _checked(_name(folder), folder)
    _write(folder, _files(package))
    print(f"{folder}: a project with the package {package}; README.md says how to go on:")
    print(f"  cd {folder}\n  export ROBODE_TRUST={package} PYTHONPATH=.\n  robode check {package}")
    return 0


def _check_folder(folder: Path) -> None:
    with suppress(FileNotFoundError):
        if folder.is_symlink() and not folder.exists() or not folder.is_dir() and folder.exists():
            raise BadInput(f"robode init {folder}: expected a new or empty folder, this is a file or a link to nothing")
        try:
            there = sorted(path.name for path in folder.iterdir())
        except PermissionError as error:
            raise BadInput(f"robode init {folder}: cannot be read ({error.strerror})") from error
        if there:
            raise BadInput(f"robode init {folder}: expected a new or empty folder, it has {', '.join(there[:3])}")


def _name(folder: Path) -> str:
    return re.sub(r"\W+", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")


def _checked(name: str, folder: Path | None = None) -> str:
    """The name of the package. folder: from which it is taken."""
    said = f"robode init {folder}: name=PACKAGE is needed, '{name}'" if folder else f"name={name}: this"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BadInput(f"{said} is no name of a package; expected small letters, digits and _, for example name=my_lab")
    spec = find_spec(name)
    if spec is not None and spec.origin is not None:  # without: a folder of that name, such as an empty one
        raise BadInput(f"{said} is the name of a package that is there already; choose another one")
    return name


def _files(package: str) -> dict[str, str]:
    """Name of each file -> its text."""
    root = template_dir()
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = RENAMED.get(path.name, path.relative_to(root).as_posix())
        found[name.replace(STANDS_FOR, package)] = path.read_text(encoding="utf-8").replace(STANDS_FOR, package)
    return found


def _write(folder: Path, files: dict[str, str]) -> None:
    """All files, or none of them."""
    new = next((path for path in [*reversed(folder.parents), folder] if not path.exists()), None)
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        for path in [new] if new else list(folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise JobFailed(f"cannot write {error.filename or folder}: {error.strerror}") from error
