"""Where the configuration is read from: the project's own ``conf/`` and the folders a user adds."""

import os
from collections.abc import Sequence
from pathlib import Path

from robode.errors import BadInput


def conf_dir() -> Path:
    """The project's own configuration: inside an installed package, or beside ``src`` in a checkout."""
    return _beside("conf/train.yaml").parent


def template_dir() -> Path:
    """What `robode init` copies."""
    return _beside("templates/project/README.md").parent


def _beside(file: str) -> Path:
    """A file that is in the wheel's package and in the checkout beside ``src``."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parents[1]):
        if (folder / file).is_file():
            return folder / file
    raise BadInput(f"the installation is incomplete: no {file} near {package}; install robode again")


def user_conf_dirs(named: Sequence[str] = ()) -> list[Path]:
    """Further configuration folders, in the order in which they are searched after the project's own.

    Args:
        named: the values of ``--config-dir``.

    Returns:
        ``named``, then ``./conf`` where there is one, then the folders in ``$ROBODE_CONFIG_PATH``.

    Raises:
        BadInput: a folder that was asked for by name does not exist.
    """
    said = os.environ.get("ROBODE_CONFIG_PATH", "").split(os.pathsep)
    from_environment = [os.path.expanduser(path) for path in said if path]
    for source, paths in (("--config-dir", named), ("ROBODE_CONFIG_PATH", from_environment)):
        for path in paths:
            if not Path(path).is_dir():
                raise BadInput(f"{source}: expected a folder with YAML files, '{path}' is not a folder")
    candidates = [*named, *(["conf"] if Path("conf").is_dir() else []), *from_environment]
    ours, found = conf_dir(), []
    for folder in (Path(candidate).resolve() for candidate in candidates):
        if folder != ours and folder not in found:
            found.append(folder)
    return found
