"""Hydra's and OmegaConf's complaints as one sentence: what came, what was expected, which key to change."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import yaml

from robode.config.allowed import describes
from robode.config.config import Value
from robode.config.schema import expected_type, words

SHORT = 3  # letters; parts of a word that are shorter say nothing
# Other words for a key: the level of noise is its variance, a radius is called eps.
MEANT = {"std": "var", "sigma": "var", "variance": "var", "epsilon": "eps", "radius": "eps"}


def flat_keys(node: Value, prefix: str = "") -> Iterator[str]:
    """Dotted names of every key in a plain tree, branches included."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from flat_keys(value, f"{prefix}{key}.")


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known dotted key that was probably meant: another word for the same, the same last name elsewhere, or a
    similar spelling."""
    parent, _, key = word.rpartition(".")
    if (meant := f"{parent}.{MEANT.get(key)}") in known:
        return meant
    last_names = {key.split(".")[-1]: key for key in sorted(known, key=len, reverse=True)}
    last = word.split(".")[-1]
    if last in known:  # a key of no group
        return last
    if word == last and word in last_names:
        return last_names[word]
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    if near:
        return near[0]
    near = difflib.get_close_matches(last, list(last_names), n=1, cutoff=0.8)
    return last_names[near[0]] if near else None


def unknown_key(verb: str, key: str, known: Sequence[str]) -> str:
    """One line for a key that the verb does not have.

    Args:
        known: dotted names of all keys of the composed configuration.
    """
    if "@" in key:
        return f"'{key}': a group is chosen by its name alone: {key.split('@')[0]}=…"
    if key in known:
        return f"'{key}': the value has keys that '{key}' does not have"
    known = [name for name in known if not name.endswith("_target_") and not describes(name)]
    guess = closest(key, known)
    if guess is not None:
        return f"unknown key '{key}': did you mean '{guess}'?"
    parent = key
    while "." in parent:
        parent = parent.rpartition(".")[0]
        children = [name for name in known if name.rpartition(".")[0] == parent]
        if children:
            return f"unknown key '{key}': '{parent}' has {', '.join(children)}"
    return f"unknown key '{key}': robode {verb} takes {', '.join(words(verb))}"


def nearest(choice: str, choices: Sequence[str]) -> str | None:
    """The choice that was probably meant: one that is spelt nearly alike, else the most similar one that has the word
    in it or is a part of it (moons: double_moons, not mnist), else a similar one; never the word itself."""
    word, choices = choice.lower(), [each for each in choices if each != choice]
    inside = [each for each in choices if min(len(word), len(each)) >= SHORT and (word in each or each in word)]
    for among, cutoff in ((choices, 0.8), (inside, 0.0), (choices, 0.6)):
        if near := difflib.get_close_matches(word, among, n=1, cutoff=cutoff):
            return near[0]
    return None


def unknown_choice(group: str, choice: str, choices: Sequence[str]) -> str:
    """One line for a group option that does not exist."""
    near = nearest(choice, choices)
    hint = f"did you mean '{near}'? " if near else ""
    return f"{group}={choice}: unknown {group}; {hint}choose one of: {', '.join(choices) or '(none found)'}"


def one_choice(verb: str, override: str, values: Sequence[str]) -> str:
    """One line for a list where a single option is expected."""
    key = override.partition("=")[0]
    return f"{override}: expected one {key}; for a job each: robode {verb} -m {key}={','.join(values)}"


def needs_multirun(override: str, text: bool) -> str:
    """One line for several values where a single job was asked for. text: whether they are names or paths."""
    key, _, value = override.partition("=")
    one = f"a text with a comma is quoted twice: \"{key}='{value}'\"" if text else f"a list is written {key}=[{value}]"
    return f"{override}: several values need -m (a sweep); {one}"


def unreadable(override: str) -> str:
    """One line for an override that is none."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return f"{override}: expected key=value, for example depth=8"
    if "=" in value and not re.search(r"['\"\[{(]", value):
        return f"{override}: expected one value of {key}; a text with = in it is quoted twice: \"{key}='{value}'\""
    return f"{override}: cannot be read as key=value; are all quotes and brackets closed?"


def group_and_choice(file: str) -> tuple[str, str]:
    """``experiment/paper/table`` → ``experiment``, ``paper/table``; Hydra's own groups have two parts."""
    cut = file.index("/", len("hydra/") if file.startswith("hydra/") else 0)
    return file[:cut], file[cut + 1 :]


def key_not_found(error: Exception) -> tuple[str, str] | None:
    """Where (empty for the command line) and which key, if Hydra complains of a key that does not exist."""
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return "", match[1]
    if match := re.search(r"In '([^']+)': ConfigKeyError.*\nKey '([^']+)' not in", text):
        return f"{match[1]}.yaml: ", match[2]
    if (match := re.search(r"Error merging override \+*([^=]+)=", text)) and "not in" in str(error.__cause__):
        return "", match[1]
    return None


def sentence(verb: str, error: Exception) -> str:
    """One line for any other complaint of Hydra's."""
    text = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: cannot be read as YAML ({error.problem})"
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"+{match[1]}: {match[1]} is a key already; write it without the +"
    if match := re.search(r"Error merging override (.+)", text):
        return _wrong_type(verb, match[1], first_line(error.__cause__ or error))
    if match := re.search(r"In '([^']+)': \w+ raised while composing.*\n(.+)(?:\n +full_key: (.+))?", text):
        return f"{match[1]}.yaml: {match[3] or 'a value'}: {match[2]}"
    return f"the configuration cannot be composed: {first_line(error)}"


def _wrong_type(verb: str, override: str, reason: str) -> str:
    key, _, value = override.lstrip("+").partition("=")
    expected = expected_type(verb, key)
    if reason.startswith("Cannot merge"):
        reason = f"expected a value of {key}, which has no keys of its own"
    return f"{override}: {key} must be {expected}, got '{value}'" if expected else f"{override}: {reason}"


def first_line(error: BaseException) -> str:
    """The first line that says something, of an exception or of what caused it."""
    current: BaseException | None = error
    while current is not None:
        lines = [line.strip() for line in str(current).splitlines() if line.strip()]
        if lines:
            return lines[0]
        current = current.__cause__
    return type(error).__name__
