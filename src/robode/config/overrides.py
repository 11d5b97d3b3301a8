"""Overrides, the `key=value` of a command line, as Hydra can read them: what names a thing stays as it was typed.

Hydra reads 2026_11_28 as a number, and refuses ~/data and a=b. Where a key takes a name or a path, the text is quoted
for it, so that run=1e3 is the run "1e3".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from functools import cache
from itertools import islice, product
from types import NoneType

from hydra.core.override_parser.types import Override

from robode.config.config import CONFIGS, Part
from robode.config.jobs import MOST_JOBS
from robode.config.parse import hints, is_group, options_of
from robode.config.paths import conf_dir
from robode.errors import BadInput

# What Hydra reads as this text already, and what is meant for Hydra: quotes, lists, references, null, functions.
_PLAIN = re.compile(r"(?!(true|false|nan|inf|null)$)[a-z_/][\w./-]*", re.IGNORECASE | re.ASCII)
_TAKES_TEXT = re.compile(r"^  (\w+): [^#\n]*\b(?:a file|a folder|text)\b", re.MULTILINE)
_OF_HYDRA = re.compile(r"null$|['\"\[{]|.*\$\{|(choice|range|interval|glob|shuffle|sort|tag|str|json_str)\(")


def typed_text(verb: str, override: str, sweep: bool) -> str:
    """An override with its value quoted, where its key takes a text that Hydra would read as something else; else as it
    is. sweep: whether commas are between values."""
    key, equals, value = override.partition("=")
    if not equals or not (value.startswith("~") or key.lstrip("+") in text_keys(verb)):
        return override
    if "," in value and not sweep:
        return override  # refused, with a hint
    return f"{key}={','.join(map(_quoted, value.split(',')))}" if not re.search(r"['\"\[{(]", value) else override


def _quoted(value: str) -> str:
    if not value or _PLAIN.fullmatch(value) or _OF_HYDRA.match(value):
        return value
    return "'" + value.replace("\\'", "\\\\'").replace("'", "\\'") + "'"


@cache
def text_keys(verb: str) -> frozenset[str]:
    """Keys of a verb whose value is a name or a path: texts, groups, of which a file is chosen by name, and the keys
    of robode's models and data sets that take a file, a folder or a text (`allowed`)."""
    return frozenset([*_text_keys(CONFIGS[verb], ""), *_of_parts()])


def _of_parts() -> list[str]:
    """model.J_file, data.file and the like, as their YAML files have them, a key a line."""
    files = {group: sorted((conf_dir() / group).glob("*.yaml")) for group in ("model", "data")}
    texts = [(group, file.read_text(encoding="utf-8")) for group in files for file in files[group]]
    return [f"{group}.{name}" for group, text in texts for name in _TAKES_TEXT.findall(text)]


def _text_keys(kind: type, where: str) -> list[str]:
    found = []
    for name, hint in hints(kind).items():
        options = options_of(hint)
        if any(is_group(each) or is_dataclass(each) for each in options) or {*options} - {NoneType} == {str}:
            found.append(f"{where}{name}")
        for each in options:
            if isinstance(each, type) and is_dataclass(each) and not issubclass(each, Part):
                found += _text_keys(each, f"{where}{name}.")
    return found


def one_by_one(parsed: Sequence[Override]) -> list[tuple[str, ...]]:
    """The overrides of each job of a sweep: every combination of the swept values, the last one's changing first.

    Raises:
        BadInput: more jobs than a command line can have.
    """
    lists, jobs = [], 1
    for each in parsed:
        if each.is_hydra_override():
            continue
        if each.is_sweep_override():
            values = [f"{each.get_key_element()}={v}" for v in islice(each.sweep_string_iterator(), MOST_JOBS + 1)]
        else:
            values = [str(each.input_line)]
        lists.append(values)
        jobs *= len(values)
        if jobs > MOST_JOBS:
            raise BadInput(f"{each.input_line}: expected at most {MOST_JOBS} jobs of one sweep; leave values out")
    return list(product(*lists))
