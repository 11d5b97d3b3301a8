"""What can be chosen, for people: `robode list` and `robode <verb> --help`."""

from collections.abc import Sequence
from pathlib import Path

from robode.config import schema
from robode.config.listing import description, entries, options
from robode.config.parse import UNSET
from robode.config.paths import conf_dir, user_conf_dirs
from robode.errors import BadInput

# What `robode list` calls a group → its folder.
GROUPS = {
    "models": "model",
    "data": "data",
    "suites": "suite",
    "integrators": "integrator",
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


def paper_items(user_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Papers with their descriptions, each followed by its items as PAPER/ITEM with their titles."""
    from robode.papers.reading import load

    found: dict[str, str] = {}
    for name, about in entries("paper", user_dirs).items():
        items = load(name, user_dirs).items
        found |= {name: about} | {f"{name}/{item.name}": item.title for item in items.values()}
    return found


def run_list(arguments: Sequence[str]) -> int:
    """Print the options of one group or of all of them. Exit code 0.

    Raises:
        BadInput: a word that is not one of ``GROUPS``.
    """
    unknown = [word for word in arguments if word not in GROUPS]
    if unknown:
        raise BadInput(f"robode list {unknown[0]}: choose from {', '.join(GROUPS)}")
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # one entry a line for grep
        console = Console(width=250)
    user_dirs = user_conf_dirs()
    for title in arguments or GROUPS:
        group = GROUPS[title]
        how = "robode reproduce PAPER/ITEM" if group == "paper" else f"{group}=…"
        table = Table(title=f"{title}  ({how})", title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for name, about in (paper_items(user_dirs) if group == "paper" else entries(group, user_dirs)).items():
            table.add_row(escape(name), escape(about))
        console.print(table)
        console.print()
    return 0


def verb_help(verb: str, config_dirs: Sequence[str] = ()) -> str:
    """The help text of a verb of `config.CONFIGS`: words with their defaults, groups with their options."""
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
    if default == UNSET:
        return f"{word}={word.upper()}"
    return f"{word}={'null' if default is None else default}"
