"""What can be chosen: the YAML files of each group, with the one-line description that each begins with."""

from collections.abc import Sequence
from pathlib import Path

from robode.config.paths import conf_dir

# What `robode list` calls a group → its folder.
GROUPS = {
    "models": "model",
    "data": "data",
    "suites": "suite",
    "integrators": "integrator",
    "encoders": "encoder",
    "heads": "head",
    "augmentations": "augment",
    "objectives": "objective",
    "optimizers": "optimizer",
    "callbacks": "callbacks",
    "experiments": "experiment",
    "papers": "paper",
    "protocols": "protocol",
    "trainers": "trainer",
    "launchers": "hydra/launcher",
}


def entries(group: str, user_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Options of a group: name → description, the project's own first.

    A name is the file's path below the group's folder without ``.yaml`` (``chnode_2022/table1``).
    """
    found: dict[str, str] = {}
    for folder in (conf_dir(), *user_dirs):
        for file in sorted((folder / group).rglob("*.yaml")):
            name = file.relative_to(folder / group).with_suffix("").as_posix()
            found.setdefault(name, description(file))
    return found


def options(group: str, user_dirs: Sequence[Path] = ()) -> list[str]:
    """Names of a group's options."""
    return list(entries(group, user_dirs))


def description(file: Path) -> str:
    """The comment that a YAML file begins with (after Hydra's ``# @package`` line, if any), or nothing."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("# @"):
                return line[1:].strip() if line.startswith("#") else ""
    return ""
