"""Whether a built site is whole: every link inside it leads somewhere, and nothing is fetched from elsewhere.

    python scripts/check_site.py docs/_build/html

Prints what is wrong, one line each, and exits with 1 if there is anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = ("script", "img", "link", "iframe", "source", "audio", "video")
"""Elements whose address the browser fetches by itself."""


class Page(HTMLParser):
    """What a page has: the places that a link may name, and the addresses that it names, each with its element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        self.links += [(tag, value) for key in ("href", "src") if (value := given.get(key))]


def broken(site: Path) -> Iterator[str]:
    """One line for each link that leads nowhere, and for each resource that is not part of the site."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for tag, address in page.links:
            if reason := _wrong(site, path, pages, tag, address):
                yield f"{path.relative_to(site)}: {address}: {reason}"


def _wrong(site: Path, path: Path, pages: dict[Path, Page], tag: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return "is fetched from elsewhere" if tag in LOADED and parts.scheme != "data" else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    target = target / "index.html" if target.is_dir() else target
    if not target.is_relative_to(site) or not target.is_file():
        return "no such file in the site"
    page = pages.get(target)
    anchor = unquote(parts.fragment)
    return f"no place is called {anchor}" if page and anchor and anchor not in page.anchors else ""


def main(site: Path) -> int:
    found = list(broken(site))
    print("\n".join(found) or f"{site}: every link inside leads somewhere, and nothing comes from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
