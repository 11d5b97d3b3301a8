"""Tables and texts of the generated pages, in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing where there are no rows."""
    lines = [_line(cells) for cells in rows]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines]) + "\n" if lines else ""


def code(text: object) -> str:
    """As code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def prose(text: str) -> str:
    """Plain text of a YAML file: nothing in it is Markdown."""
    for letter in "\\`*_[]<>$|":
        text = text.replace(letter, f"\\{letter}")
    return text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"
