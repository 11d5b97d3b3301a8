"""The house: imports point one way, no module imports itself round a corner, and every file and function has a size."""

import ast
from functools import cache
from pathlib import Path

import pytest

import robode

SOURCE = Path(robode.__file__).parent
# From the bottom up; a room uses those before it and those beside it.
ORDER = (
    ("errors", "files", "foreign", "device", "process"),
    ("config",),
    ("launch",),
    ("linalg", "backbones", "optimizers", "iterations", "deblurring"),
    ("ode", "integrators"),
    ("families",),
    ("tasks",),
    ("data",),
    ("encoders", "heads", "network"),
    ("corruptions", "attacks", "certificates"),
    ("objectives",),
    ("runs",),
    ("quantities",),
    ("masking",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("papers",),
    ("contracts",),
    ("api",),
    ("verbs",),
    ("cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MOST_LINES, MOST_PARAMETERS = 420, 8


@cache
def modules() -> dict[str, ast.Module]:
    """Dotted name below robode -> its syntax tree."""
    found = {}
    for file in SOURCE.rglob("*.py"):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if name:
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Modules of robode that a module imports, in functions too; not those for type checkers alone."""
    silent = {
        id(child)
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(modules()[name]):
        if id(node) not in silent and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robode"):
            base = (node.module or "").removeprefix("robode").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in modules() else base)
    return frozenset(found & set(modules()))


def test_every_room_has_its_place():
    assert {name.partition(".")[0] for name in modules()} == set(LEVEL)


def test_imports_point_one_way():
    up = [
        f"{name} imports {other}"
        for name in modules()
        for other in imports(name)
        if LEVEL[other.partition(".")[0]] > LEVEL[name.partition(".")[0]]
    ]
    assert not up, "\n".join(sorted(up))


def test_no_module_imports_itself_round_a_corner():
    reached = {name: set(imports(name)) for name in modules()}
    for _ in reached:
        grown = {name: others.union(*(reached[other] for other in others)) for name, others in reached.items()}
        if grown == reached:
            break
        reached = grown
    assert not sorted(name for name in reached if name in reached[name])


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_is_one_concept_and_a_function_has_few_parameters(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        # keys of a YAML file are the arguments of its class
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            few = [each for each in given if each.arg not in ("self", "cls")]
            assert len(few) <= MOST_PARAMETERS, f"{node.name}, line {node.lineno}: {len(few)} parameters"
