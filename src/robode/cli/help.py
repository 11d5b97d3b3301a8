"""What can be chosen, for people: `robode list` and `robode <verb> --help`."""

from collections.abc import Sequence

from robode.config import schema
from robode.config.listing import description, options
from robode.config.parse import UNSET
from robode.config.paths import conf_dir, user_conf_dirs

FLAGS = """\
  -m, --multirun     a sweep: every combination of values separated by commas, depth=4,8 seed=range(0,5)
  hydra/launcher=…   who runs the jobs of a sweep, instead of this process: {launchers}
  --config-dir DIR   more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --cfg              print the composed configuration and stop
  --dry-run          every job with its run, its state and an estimate of its cost; nothing is done
  --help             this text

Keys inside a group are reached with a dot: model.width=16. `robode {verb} --cfg` shows all of them."""


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
    return "\n".join([*lines, "", FLAGS.format(verb=verb, launchers=", ".join(options("hydra/launcher", user_dirs)))])


def _shown(word: str, default: object) -> str:
    if isinstance(default, dict):
        return f"{word}.{next(iter(default))}"
    if word == "experiment":
        return word
    if default == UNSET:
        return f"{word}={word.upper()}"
    return f"{word}={'null' if default is None else default}"
