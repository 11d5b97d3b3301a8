"""What of an item is asked for: PAPER/ITEM and the overrides behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from robode.config.listing import description
from robode.config.paths import conf_dir, user_conf_dirs
from robode.errors import BadInput
from robode.papers.spec import FULL, Item, Size, chosen, find_item, items, key_of, seeds
from robode.report.layout import TableRow, Yaml
from robode.runs.identity import VOLATILE
from robode.runs.origin import ANY, CODES, SAME
from robode.runs.run import OUTPUTS

REPORTS = OUTPUTS / "reports"
OWN = ("size", "variant", "seeds", "rows", "force", "code", "fail_fast", "launcher")  # keys of `reproduce` itself
FOR_EVALUATION_TOO = ("data.root", "repeats")
REPRODUCE = """\
usage: robode reproduce PAPER/ITEM [key=value ...]

Train and measure what a table or figure of a paper needs, and write it beside the published values. What was done
before is not done again; several processes can share one reproduction; after an interruption the same command goes on.

  size=full                  how much of it: the whole thing, or a smaller one that says so
  variant=NAME               which of several readings of the paper (the first is the default)
  seeds=3, seeds=[1,2,5]     how many training seeds, or which, instead of those planned
  rows=TEXT, rows=[A,B]      only the rows whose group and label contain the text
  force=true                 train again what is done already
  code=any                   count runs that other code trained, marked †, instead of training them anew
  fail_fast=true             stop at the first job that fails
  launcher=NAME              who trains and measures, instead of this process: joblib, submitit_local,
                             submitit_slurm, ray; hydra.launcher.KEY=value sets what conf/hydra/launcher/NAME.yaml has
  key=value                  any other override is given to every training: data.root=DIR trainer.threads=1; one that
                             changes the experiment is named in the report

  --dry-run                  every job with its run, its state and what is missing; nothing is done
  --config-dir DIR           more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --help                     this text
"""
REPORT = """\
usage: robode report [RUN ...|PAPER/ITEM] [key=value ...]

Write tables (Markdown, CSV, LaTeX) and a page from what runs have written. Nothing is trained or measured.

  RUN ...                    these runs: folders or names; none at all: every run under outputs/
  PAPER/ITEM                 a table or figure as far as it is reproduced; size=, variant=, seeds= and overrides as in
                             `robode reproduce`
  from=FOLDER                make the report in this folder again from its own tables, without the runs
  to=FOLDER                  where to write; otherwise below outputs/reports/
  sort=validation            of runs: the best of this column first; choose settings by validation scores, not by test

  --config-dir DIR           more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --help                     this text
"""


@dataclass(frozen=True)
class Selection:
    """An item at one size and variant; it has the rows of that size only.

    seeds: instead of those of size and rows; rows: only run rows that contain one of these texts; overrides:
    the user's own, appended to those of every training (and where they make sense to those of every evaluation); code:
    whether runs of other code count (origin.CODES); launcher: the words for Hydra that choose one, none where the jobs
    run in this process.
    """

    item: Item
    size: Size
    variant: str
    seeds: tuple[int, ...] | None = None
    rows: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    force: bool = False
    code: str = SAME
    fail_fast: bool = False
    config_dirs: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """PAPER/ITEM."""
        return f"{self.item.paper.name}/{self.item.name}"

    @property
    def experiment(self) -> str:
        """The recipe in conf/experiment."""
        return self.item.experiment[self.variant]

    @property
    def changes(self) -> tuple[str, ...]:
        """Those of the user's overrides that change what is computed or measured."""
        return tuple(each for each in self.overrides if not _volatile(key_of(each)))

    @property
    def label(self) -> str:
        """What a reader must know before comparing with the published values; empty for the full thing."""
        changed = f"changed: {' '.join(self.changes)}" if self.changes else ""
        return "; ".join(part for part in (self.size.label, changed) if part)

    @property
    def about_variant(self) -> str:
        """What the experiment's YAML file says about itself."""
        files = [folder / "experiment" / f"{self.experiment}.yaml" for folder in _folders(self.config_dirs)]
        return next((description(file) for file in files if file.is_file()), "")

    @property
    def folder(self) -> Path:
        """Where the report is written: one for each variant, size and set of changes."""
        parts = [self.item.of_variant(self.variant)]
        parts += [self.size.name] if self.size.name != FULL else []
        parts += [hashlib.sha256(" ".join(self.changes).encode()).hexdigest()[:6]] if self.changes else []
        return REPORTS / self.item.paper.name / "-".join(parts)

    @property
    def command(self) -> list[str]:
        """The command line that makes the whole report."""
        own = [f"size={self.size.name}"] if self.size.name != FULL else []
        own += [f"variant={self.variant}"] if self.variant else []
        own += [f"seeds=[{','.join(map(str, self.seeds))}]"] if self.seeds else []
        return ["robode", "reproduce", self.name, *own, *self.overrides]

    def seeds_of(self, row: TableRow) -> tuple[int, ...]:
        """The seeds that the row is planned with."""
        return self.size.seeds or row.seeds

    def evaluations(self) -> list[tuple[str, ...]]:
        """Overrides of every `robode evaluate` that a run needs after its training, without the run."""
        more = [each for each in self.overrides if key_of(each) in FOR_EVALUATION_TOO]
        more += [f"code={ANY}"] if self.code == ANY else []
        return [(*overrides, *self.size.evaluate, *more) for overrides in self.item.evaluations]


def item_among(words: Sequence[str], config_dirs: Sequence[str] = ()) -> str:
    """The one word that is no ``key=value``: PAPER/ITEM. Raises `BadInput` with the choices."""
    named = [word for word in words if "=" not in word and not word.startswith("~")]
    if len(named) != 1:
        choices = ", ".join(items(user_conf_dirs(config_dirs)))
        raise BadInput(f"expected one PAPER/ITEM, got {' '.join(named) or 'none'}; choose one of: {choices}")
    return named[0]


def select(where: str, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Selection:
    """What PAPER/ITEM and the overrides behind it ask for.

    Raises:
        BadInput: an unknown paper, item, size or variant; an override that would change what a row is.
    """
    item = find_item(where, user_conf_dirs(config_dirs))
    given: dict[str, Yaml] = {}
    rest = []
    of_launcher = [each for each in overrides if each.lstrip("+").startswith("hydra.launcher.")]
    for override in overrides:
        if override in of_launcher:
            continue
        key, equals, value = override.partition("=")
        if not equals or key not in OWN:
            rest.append(override)
            continue
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadInput(f"{override}: cannot be read; are all quotes and brackets closed?") from None
    size = item.sizes[chosen("size=", str(given.get("size", FULL)), list(item.sizes))]
    if "variant" in given and list(item.experiment) == [""]:
        raise BadInput(f"variant={given['variant']}: {where} has no variants; leave it out")
    variant = chosen("variant=", str(given.get("variant", next(iter(item.experiment)))), list(item.experiment))
    selection = Selection(
        replace(item, rows=tuple(row for row in item.rows if row.matches(size.rows))), size, variant,
        seeds(given["seeds"], "seeds") if "seeds" in given else None,
        _texts(given.get("rows", [])), tuple(rest), _flag(given, "force"),
        chosen("code=", str(given.get("code", SAME)), list(CODES)), _flag(given, "fail_fast"),
        tuple(config_dirs),
    )  # fmt: skip
    if "launcher" in given:
        selection = replace(selection, launcher=(f"hydra/launcher={given['launcher']}", *of_launcher))
    elif of_launcher:
        raise BadInput(f"{of_launcher[0]}: without launcher=NAME there is nothing to set")
    _check(selection)
    return selection


def _check(selection: Selection) -> None:
    for part in selection.rows:
        if not any(row.matches((part,)) for row in selection.item.rows):
            names = ", ".join(f"'{row.name}'" for row in selection.item.rows)
            raise BadInput(f"rows={part}: no row of {selection.name} contains this; there are {names}")
    taken = {key_of(override) for row in selection.item.rows for override in row.overrides}
    for override in selection.overrides:
        if "=" not in override and not override.startswith("~"):
            raise BadInput(f"{override}: expected key=value, for example size=smoke or epochs=2")
        key = key_of(override)
        if key in (*taken, "experiment", "seed", "run", "resume", "start"):
            instead = {"seed": "seeds=", "experiment": "variant="}.get(key, "rows=")
            raise BadInput(f"{override}: the rows of {selection.name} set {key} themselves; choose with {instead}")


def _flag(given: dict[str, Yaml], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise BadInput(f"{key}={value}: {key} must be true or false")
    return value


def _texts(value: Yaml) -> tuple[str, ...]:
    """``rows=ResNet``, ``rows=ResNet,H-DNN`` and ``rows=[ResNet,H-DNN]``."""
    values = value if isinstance(value, list) else str(value).split(",")
    return tuple(text for text in (str(each).strip() for each in values) if text)


def _volatile(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in VOLATILE)


def _folders(config_dirs: Sequence[str]) -> list[Path]:
    return [conf_dir(), *user_conf_dirs(config_dirs)]


def usage(verb: str, config_dirs: Sequence[str] = ()) -> str:
    """The help text of `reproduce` or `report`, with every item, its sizes and variants."""
    lines = [REPRODUCE if verb == "reproduce" else REPORT]
    known = items(user_conf_dirs(config_dirs))
    width = max(map(len, known))
    for name, item in known.items():
        variants = f"; variant={'|'.join(item.experiment)}" if len(item.experiment) > 1 else ""
        lines.append(f"  {name:<{width}} {item.title}; size={'|'.join(item.sizes)}{variants}")
    return "\n".join(lines)
