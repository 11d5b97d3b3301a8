"""The reference of the Python code: one page a room, every module with what it defines, from the docstrings."""

import pkgutil

ROOMS = ("api", "network", "encoders", "heads", "tasks", "data", "ode", "integrators", "families", "objectives",
         "corruptions", "attacks", "certificates", "masking", "quantities", "contracts")  # fmt: skip
"""What people import, derive from, or look a theorem up in; a room that is missing is read in the code."""


def pages() -> dict[str, str]:
    """File name -> text."""
    listed = "\n".join(ROOMS)
    tree = f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    index = f"# The Python code\n\nWhat [the rooms](../../architecture.md) define, from their docstrings.\n\n{tree}"
    return {"api/index.md": index, **{f"api/{room}.md": _page(room) for room in ROOMS}}


def _page(room: str) -> str:
    found = pkgutil.resolve_name(f"robode.{room}")
    below = [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", []))] if room != "api" else []
    own = [] if below and not found.__doc__ else [_module(f"robode.{room}")]
    return "\n".join([f"# robode.{room}\n", *own, *(_module(f"robode.{room}.{name}", True) for name in below)])


def _module(name: str, heading: bool = False) -> str:
    head = f"## {name}\n\n" if heading else ""
    options = "   :members:\n   :show-inheritance:\n"
    return f"{head}```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n"
