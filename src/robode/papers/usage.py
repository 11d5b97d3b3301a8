"""The help texts of `robode reproduce` and `robode report`."""

from __future__ import annotations

from collections.abc import Sequence

from robode.config.paths import user_conf_dirs
from robode.papers.reading import items

REPRODUCE = """\
usage: robode reproduce PAPER/ITEM [key=value ...]

Train and measure what a table or figure of a paper needs, and write it beside the print. What was done before is not
done again; several processes can share one reproduction; after an interruption the same command goes on.

  size=full                  how much of it: the whole thing, or a smaller one that says so
  variant=NAME               which of several readings of the paper (the first is the default)
  seeds=3, seeds=[1,2,5]     how many training seeds, or which, instead of those planned
  rows=TEXT, rows=[A,B]      only the rows whose group and label contain the text
  force=true                 train again what is done already
  code=any                   count runs that other code trained, marked †, instead of training them anew
  fail_fast=true             stop at the first job that fails
  key=value                  any other word is given to every training: data.root=DIR trainer.threads=1; one that
                             changes the experiment is named in the report

  --dry-run                  every job with its run, its state and what is missing; nothing is done
  --config-dir DIR           more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --help                     this text
"""
REPORT = """\
usage: robode report [RUN ...|PAPER/ITEM] [key=value ...]

Write tables (Markdown, CSV, LaTeX) and a page from what runs have written. Nothing is trained or measured.

  RUN ...                    these runs: folders or names; none at all: every run under outputs/
  PAPER/ITEM                 a table or figure as far as it is reproduced; size=, variant=, seeds= and words as in
                             `robode reproduce`
  from=FOLDER                make the report in this folder again from its own tables, without the runs
  to=FOLDER                  where to write; otherwise below outputs/reports/

  --config-dir DIR           more YAML files, in folders as in conf/ (also ./conf and $ROBODE_CONFIG_PATH)
  --help                     this text
"""


def usage(verb: str, config_dirs: Sequence[str] = ()) -> str:
    """The help text of `reproduce` or `report`, with every item, its sizes and variants."""
    lines = [REPRODUCE if verb == "reproduce" else REPORT]
    for name, item in items(user_conf_dirs(config_dirs)).items():
        variants = f"; variant={'|'.join(item.variants)}" if len(item.variants) > 1 else ""
        lines.append(f"  {name:<26} {item.title}; size={'|'.join(item.sizes)}{variants}")
    return "\n".join(lines)
