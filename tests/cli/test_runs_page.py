"""docs/runs.md names what there is."""

import re

from pages import ROOT

from robode.verbs.clean import KINDS

PAGE = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")


def test_the_kinds_of_the_page_are_those_of_the_verb() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) == list(KINDS)
