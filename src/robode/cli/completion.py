"""Shell completion: verbs from here, keys and choices from Hydra's own completion.

eval "$(robode completion bash)"            # in ~/.bashrc; zsh alike
robode completion fish | source             # in config.fish
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

from robode.config.config import CONFIGS
from robode.config.listing import GROUPS
from robode.errors import BadInput

VERBS = ("train", "evaluate", "certify", "export", "stabilise", "reproduce", "runs", "compare", "report",
         "clean", "check", "init", "list", "completion", "--help", "--version")  # fmt: skip

WORDS = {
    "runs": ("where=", "sort=", "limit=", "--watch", "--json"), "clean": ("what=", "older=", "where=", "--yes"),
    "compare": ("to=",), "init": ("name=",),
}  # fmt: skip

BASH = """\
_robode_completion() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:$COMP_POINT}" robode completion query 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./] ]] && compopt +o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _robode_completion robode"""
ZSH = """\
_robode_completion() {
    local -a found
    found=("${(@f)$(COMP_LINE="${BUFFER[1,$CURSOR]}" robode completion query 2>/dev/null)}")
    compadd -Q -S '' -a found
}
compdef _robode_completion robode"""
FISH = """\
function __robode_completion
    COMP_LINE=(commandline -cp) robode completion query 2>/dev/null
end
complete -c robode -f -a '(__robode_completion)'"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run_completion(arguments: Sequence[str]) -> int:
    """Print a shell's script, or (``query``, called by the scripts) the candidates for ``$COMP_LINE``.

    Raises:
        BadInput: a shell that is not one of ``SCRIPTS``.
    """
    if list(arguments) == ["query"]:
        print("\n".join(candidates(os.environ.get("COMP_LINE", ""))))
        return 0
    if list(arguments) in (["-h"], ["--help"]):
        print(f"usage: robode completion {'|'.join(SCRIPTS)}\n\n{__doc__}".rstrip())
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        got = " ".join(arguments) or "nothing"
        raise BadInput(f"robode completion: expected one of {', '.join(SCRIPTS)}, got {got}")
    print(SCRIPTS[arguments[0]])
    return 0


def candidates(line: str) -> list[str]:
    """Words that can stand where a command line ends (``robode train model=ch``), sorted."""
    _, *words = line.split() or [""]
    if line.endswith(" ") or not words:
        words.append("")
    *before, last = words
    if not before:
        return sorted(verb for verb in VERBS if verb.startswith(last))
    verb = before[0]
    if verb in ("list", "completion"):
        return sorted(word for word in (GROUPS if verb == "list" else SCRIPTS) if word.startswith(last))
    if verb == "check":
        return sorted(word for word in _checkable() if word.startswith(last))
    if verb in WORDS:
        return sorted(word for word in WORDS[verb] if word.startswith(last))
    if verb in ("reproduce", "report"):
        return _paper_candidates(before[1:], last)
    return _hydra_candidates(verb, " ".join([*before[1:], last])) if verb in CONFIGS else []


def _checkable() -> Iterator[str]:
    """Packages, and what is described in each group."""
    from robode.config.instantiate import trusted
    from robode.config.listing import options
    from robode.config.paths import user_conf_dirs
    from robode.contracts.described import GROUPS as groups

    yield from trusted()
    for group in groups:
        yield from (f"{group}={name}" for name in options(group, user_conf_dirs()))


def _paper_candidates(before: Sequence[str], last: str) -> list[str]:
    """PAPER/ITEM first, then the words that it knows."""
    from robode.config.paths import user_conf_dirs
    from robode.papers.spec import items

    known = items(user_conf_dirs())
    item = next((known[word] for word in before if word in known), None)
    if item is None:
        return sorted(name for name in known if name.startswith(last))
    words = [f"size={size}" for size in item.sizes] + [f"variant={name}" for name in item.experiment if name]
    return sorted(word for word in [*words, "seeds=", "rows="] if word.startswith(last))


def _hydra_candidates(verb: str, rest: str) -> list[str]:
    """Ask Hydra, which expects a command line without a verb."""
    from hydra.core.global_hydra import GlobalHydra

    from robode.config.compose import hydra_ready

    answer = io.StringIO()
    os.environ["COMP_LINE"] = f"robode {rest}"
    with hydra_ready(verb), redirect_stdout(answer):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.shell_completion(config_name=verb, overrides=["query=fish"])
    return [word for word in answer.getvalue().split() if not word.startswith("hydra")]
