"""Docstrings as reStructuredText: plain sentences with names in backticks, and nothing else in them is markup."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

SECTIONS = ("Raises:", "Returns:", "Yields:")
MARKUP = re.compile(r"([\\*|`])|(?<=\w)(_+)(?!\w)")


def readable(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Before napoleon reads the sections: what would be markup is escaped, what is indented is shown as it stands."""
    found: list[str] = []
    in_section = False
    for number, line in enumerate(lines):
        in_section = (in_section and (line.startswith(" ") or not line)) or line in SECTIONS
        begins = line.startswith(" ") and not in_section and not (number and lines[number - 1].strip())
        shown = line.startswith(" ") and not in_section and (begins or bool(found and found[-1].startswith("  ")))
        if begins and not _shown_before(found):
            found += ["::", ""]
        found.append(line if shown else _escaped(line.strip() if not in_section else line))
    lines[:] = found


def _shown_before(found: list[str]) -> bool:
    """Whether the block before the blank lines is one that is shown as it stands."""
    rest = [line for line in found if line]
    return bool(rest) and rest[-1].startswith("  ")


def _escaped(line: str) -> str:
    """Outside backticks everything means itself; inside is a name or a piece of code."""
    pieces = re.split(r"(``?[^`]+``?)", line)
    return "".join(
        f"\\ {_literal(piece)}\\ " if number % 2 else MARKUP.sub(lambda found: f"\\{found[0]}", piece)
        for number, piece in enumerate(pieces)
    )


def _literal(piece: str) -> str:
    text = piece.strip("`")
    return f":py:obj:`{text}`" if re.fullmatch(r"[A-Za-z_][\w.]*\w", text) else f"``{text}``"


def resolved(app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Node) -> nodes.Node | None:
    """A name of the package may stand for what ends with it, if there is one such thing; any other name is no link."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    ending = "." + node["reftarget"]
    full = {name for name in domain.objects if f".{name}".endswith(ending)}
    if len(full) == 1:
        (name,) = full
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)  # type: ignore[arg-type]
    return content


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", readable, priority=100)
    app.connect("missing-reference", resolved)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
