"""What the pages have in common: one self-contained file, filled from templates, without a path of this machine."""

import base64
import functools
import re
from pathlib import Path
from typing import Any

import jinja2

from robode.files import write_text
from robode.report.style import DOTS_PER_INCH

# /home/name/outputs/x and C:\\name\\x, but not the slashes of a URL, of km/h or of a relative path
_ABSOLUTE = re.compile(r"(?<![\w.~:/\\…])(?:[A-Za-z]:[/\\]|/)(?:[\w.@+~-]+[/\\])+([\w.@+-]*)")


def write_html(path: Path, template: str, **values: Any) -> Path:
    """Fill a template of this package and write it, whole or not at all; everything in `values` is escaped.

    Raises:
        JobFailed: the page cannot be written.
    """
    html = _environment().get_template(template).render(**values)
    write_text(path, html)
    return path


@functools.cache
def _environment() -> jinja2.Environment:
    """One for all pages: a template is compiled once."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("robode", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def picture(path: Path, title: str, caption: str = "") -> dict[str, str]:
    """A PNG as the templates' `figures` take it: inside the page, as wide as it was drawn."""
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big")  # pixels, from the PNG header
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    return {"title": title, "caption": caption, "source": source, "inches": f"{width / DOTS_PER_INCH:.2f}"}


def without_places(text: str) -> str:
    """The text with every absolute path cut down to "…/name": pages and tables are given to others."""
    return _ABSOLUTE.sub(r"…/\1", text)
