"""The keys a user types, with their types, as Hydra knows them: `depth=abc` is refused with a sentence by these.

They are made from the fields of `config`. Groups (model, data, …) are left open here: `parse` knows their keys.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, field, fields, make_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from robode.config.config import CONFIGS, CertifyConfig, EvaluateConfig
from robode.config.parse import TYPES, UNSET, hints
from robode.config.paths import conf_dir

# Keys that a file of conf/data may fill for `robode train`, and that verbs without a training drop.
PLACES = {EvaluateConfig.verb: ["objective"], CertifyConfig.verb: ["objective"]}


def _words(verb: str) -> list[Field[Any]]:
    return [each for each in fields(CONFIGS[verb]) if "about" in each.metadata]


def words(verb: str) -> dict[str, str]:
    """Top-level keys of a verb, each with one line of help."""
    return {word.name: word.metadata["about"] for word in _words(verb)}


def places(verb: str) -> list[str]:
    """Groups that files may fill and that are none of the keys of the verb."""
    return PLACES.get(verb, [])


def groups(verb: str) -> list[str]:
    """Those of the keys that choose YAML files, or hold keys of their own."""
    return [word.name for word in _words(verb) if _simple(verb, word.name) is None and word.default is MISSING
            and word.name != "step"]  # fmt: skip


def expected_type(verb: str, key: str) -> str | None:
    """What a top-level word must be, in words; None where anything goes or the key is unknown."""
    kind = _simple(verb, key) if key in words(verb) else None
    return None if kind is None else TYPES[next(each for each in get_args(kind) or (kind,) if each is not NoneType)]


def _simple(verb: str, name: str) -> Any:
    """A type that every version of OmegaConf knows; None where anything goes (2.3 refuses Literal and more)."""
    hint = hints(CONFIGS[verb])[name]
    if get_origin(hint) is Literal:
        return str
    some = [each for each in get_args(hint) or (hint,) if each is not NoneType]
    return hint if len(some) == 1 and some[0] in TYPES else None


def register() -> None:
    """Make the schemas known to Hydra, once a process, under the names that the primary configs list first."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for verb, schema in SCHEMAS.items():
        if f"{verb}_schema.yaml" not in store.repo:
            store.store(name=f"{verb}_schema", node=schema, provider="robode")


def forget_launchers() -> None:
    """Let conf/hydra/launcher alone say what launchers of these names have: Hydra would match the files with what
    installed plugins call the same, and warn of it."""
    from hydra.core.config_store import ConfigStore

    known = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for file in (conf_dir() / "hydra" / "launcher").glob("*.yaml"):
        known.pop(file.name, None)


def _made(verb: str) -> type:
    """The dataclass of a verb's keys, in this module, where the process of a launcher finds it."""
    known = [(each.name, _simple(verb, each.name) or Any, field(default=_default(verb, each))) for each in _words(verb)]
    made = make_dataclass(verb, [*known, *((name, Any, field(default=None)) for name in places(verb))])
    made.__module__ = __name__
    return made


def _default(verb: str, word: Field[Any]) -> Any:
    """Values stand in the YAML files; null for groups."""
    if word.name in groups(verb):
        return None
    return UNSET if word.default is MISSING or word.default is None else word.default


SCHEMAS = {verb: _made(verb) for verb in CONFIGS}
globals().update(SCHEMAS)
