"""What can be chosen: the YAML files of each group, with the one-line description that each begins with."""

from collections.abc import Sequence
from pathlib import Path

from robode.config import schema
from robode.config.paths import conf_dir, user_conf_dirs

# What `robode list` calls a group → its folder.
GROUPS = {
    "models": "model",
    "data": "data",
    "suites": "suite",
    "integrators": "integrator",
    "encoders": "encoder",
    "heads": "head",
    "objectives": "objective",
    "optimizers": "optimizer",
    "callbacks": "callbacks",
    "experiments": "experiment",
    "papers": "paper",
    "protocols": "protocol",
    "trainers": "trainer",
}

FLAGS = """\
  -m, --multirun     a sweep: every combination of values separated by commas, depth=4,8 seed=range(0,5)
  --config-dir DIR   more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --cfg              print the composed configuration and stop
  --dry-run          every job with its run, its state and an estimate of its cost; nothing is done
  --help             this text

Keys inside a group are reached with a dot: model.width=16. `robode {verb} --cfg` shows all of them."""


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


def verb_help(verb: str, config_dirs: Sequence[str] = ()) -> str:
    """The help text of a verb of `schema.SCHEMAS`: words with their defaults, groups with their options."""
    import yaml

    file = conf_dir() / f"{verb}.yaml"
    primary = yaml.safe_load(file.read_text(encoding="utf-8"))
    defaults = {**primary}
    for entry in primary.pop("defaults"):
        if isinstance(entry, dict):
            defaults |= entry
    user_dirs = user_conf_dirs(config_dirs)
    lines = [f"usage: robode {verb} [-m] [key=value ...]", "", description(file), ""]
    for word, about in schema.words(verb).items():
        lines.append(f"  {_shown(word, defaults.get(word)):<26} {about}")
        if isinstance(defaults.get(word), dict):
            continue  # only its keys can be set
        if names := options(word, user_dirs):
            lines.append(f"  {'':<26} {', '.join(names)}")
    return "\n".join([*lines, "", FLAGS.format(verb=verb)])


def _shown(word: str, default: object) -> str:
    if isinstance(default, dict):
        return f"{word}.{next(iter(default))}"
    if word == "experiment":
        return word
    if default == schema.MISSING:
        return f"{word}={word.upper()}"
    return f"{word}={'null' if default is None else default}"
