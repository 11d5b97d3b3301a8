"""What can be typed: the keys of every verb, and every choice with its keys, from the schema and from conf/."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from tables import code, prose, table

from robode.cli.main import USAGE, main
from robode.config import schema
from robode.config.allowed import DESCRIPTION, OF_OBJECTIVES, keys_of_classes
from robode.config.config import CONFIGS, DataConfig, OptimizerConfig, TrainerConfig, fields
from robode.config.listing import GROUPS, description, entries
from robode.config.paths import conf_dir

SECTIONS = {"data": DataConfig, "optimizer": OptimizerConfig, "trainer": TrainerConfig}
HEAD = ("key", "default", "what it may be", "")
OF_FILES = {*DESCRIPTION, *OF_OBJECTIVES, "defaults", "source"}
"""Keys of a YAML file that the command line does not set."""


def pages() -> dict[str, str]:
    """File name -> text."""
    described = {title: group for title, group in GROUPS.items() if group not in ("experiment", "paper")}
    found = {f"choices/{_anchor(group)}.md": choices(title, group) for title, group in described.items()}
    return {"verbs.md": verbs(), "choices/experiment.md": experiments(), **found}


def verbs() -> str:
    """Each verb with its help; a verb that takes a configuration also with a table of its keys."""
    parts = ["# Verbs and their keys\n", "What `robode VERB --help` prints, and the type of every key.\n"]
    for verb in re.findall(r"^  ([a-z]+)  ", USAGE, re.M):
        parts.append(f"## robode {verb}\n")
        if verb in CONFIGS:
            parts += [f"{prose(description(conf_dir() / f'{verb}.yaml'))}.\n", table(HEAD, _keys(verb))]
        else:
            parts.append(f"```text\n{_help(verb)}```\n")
    return "\n".join(parts)


def choices(title: str, group: str) -> str:
    """Every file of a group: its description, and its keys with their defaults and what they may be."""
    named = entries(group)
    rows = [(f"[`{name}`](#{_anchor(group)}-{_anchor(name)})", prose(about)) for name, about in named.items()]
    parts = [f"# {group}=\n", f"`robode list {title}` prints this table.\n", table(("choice", "what"), rows)]
    for name, about in named.items():
        parts.append(f"({_anchor(group)}-{_anchor(name)})=\n## {group}={name}\n\n{prose(about)}\n")
        parts.append(_keys_of_choice(group, conf_dir() / group / f"{name}.yaml"))
    return "\n".join(parts)


def experiments() -> str:
    """Every recipe as it stands."""
    parts = ["# experiment=\n", "Recipes: what differs from the defaults of `robode train`.\n"]
    for name, about in entries("experiment").items():
        text = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        parts.append(f"## {name}\n\n{prose(about)}\n\n```yaml\n{text}```\n")
    return "\n".join(parts)


def _help(verb: str) -> str:
    with redirect_stdout(io.StringIO()) as said:
        main([verb, "--help"])
    return said.getvalue()


def _keys(verb: str) -> Iterator[tuple[str, str, str, str]]:
    defaults: dict[str, Any] = yaml.safe_load((conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8"))
    for each in defaults.pop("defaults"):
        defaults |= each if isinstance(each, dict) else {}
    for key, about in schema.words(verb).items():
        page = conf_dir() / key
        shown = f"[`{key}`](choices/{key}.md)" if page.is_dir() and _has_page(key) else code(key)
        value = defaults.get(key)
        default = "(required)" if value == "???" else code(_said(value)) if not isinstance(value, dict) else ""
        yield shown, default, _expected(verb, key), prose(about)


def _has_page(group: str) -> bool:
    return group in GROUPS.values() and group != "paper"


def _expected(verb: str, key: str) -> str:
    """The type of a key of the schema, or the words that its field allows."""
    (field,) = (each for each in fields(CONFIGS[verb]) if each.name == key)
    return prose(field.metadata["expected"] or schema.expected_type(verb, key) or "a choice or null")


def _keys_of_choice(group: str, path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    remarks = dict(re.findall(r"^ *(\w+):[^#\n]*# (.+)$", text, re.M))
    if not isinstance(node, Mapping):
        return ""
    if group in ("suite", "objective", "callbacks"):
        return "\n".join(_entry(group, name, entry, remarks) for name, entry in node.items() if name != "defaults")
    if group == "optimizer":
        return f"```yaml\n{text}```\n"
    return table(HEAD, (_row(group, key, node, remarks) for key in node if key not in OF_FILES))


def _entry(group: str, name: str, node: object, remarks: Mapping[str, str]) -> str:
    """One part of several in a file: its class, and its keys."""
    if not isinstance(node, Mapping):
        return f"`{group}.{name}` = `{_said(node)}`\n"
    allowed = keys_of_classes().get(node["_target_"], {})
    keys = {**dict.fromkeys(allowed), **{key: node[key] for key in node if key not in OF_FILES}}
    rows = [
        (code(f"{group}.{name}.{key}"), code(_said(node[key])) if key in node else "the class's own",
         _allowed(allowed.get(key, "")), prose(remarks.get(key, "")))
        for key in keys if key != "suite"
    ]  # fmt: skip
    return f"`{name}`: `{node['_target_']}`\n\n{table(HEAD, rows)}"


def _row(group: str, key: str, node: Mapping[str, Any], remarks: Mapping[str, str]) -> tuple[str, str, str, str]:
    spec = node.get("allowed", {}).get(key, "")
    if not spec and group in SECTIONS:
        spec = next((each.metadata.get("expected", "") for each in fields(SECTIONS[group]) if each.name == key), "")
    return code(f"{group}.{key}"), code(_said(node[key])), _allowed(spec), prose(remarks.get(key, ""))


def _allowed(spec: object) -> str:
    """What a key may be: one text, or one for each case."""
    if not isinstance(spec, Mapping):
        return _said(spec).replace("|", r"\|")
    cases = ("else" if condition == "else" else f"with {condition}" for condition in spec)
    return "; ".join(f"{case}: {_allowed(text)}" for case, text in zip(cases, spec.values(), strict=True))


def _said(value: object) -> str:
    """A value as YAML says it."""
    if isinstance(value, str):
        return value
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def _anchor(name: str) -> str:
    return re.sub(r"\W", "-", name)
