"""Every public name says what it is: modules, classes, functions and methods, read without importing them.

A method that a class writes anew may leave it to the class above that has described it. Names of packages without a
line of code are described in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from test_rooms import modules

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | Function]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


def called(node: ast.expr) -> str:
    """The last name of a base class: A of a.b.A[T]."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def described_above(kind: ast.ClassDef, method: str, classes: dict[str, list[ast.ClassDef]]) -> bool:
    above = [each for base in kind.bases for each in classes.get(called(base), []) if each is not kind]
    own = [node for each in above for node in public(each.body) if node.name == method]
    return any(map(ast.get_docstring, own)) or any(described_above(each, method, classes) for each in above)


def undescribed(trees: dict[str, ast.Module]) -> list[str]:
    """Dotted names of what has no docstring."""
    classes: dict[str, list[ast.ClassDef]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
    found = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    for name, tree in trees.items():
        for node in public(tree.body):
            found += [f"{name}.{node.name}"] * (not ast.get_docstring(node))
            for method in public(node.body) if isinstance(node, ast.ClassDef) else ():
                if not ast.get_docstring(method) and not described_above(node, method.name, classes):
                    found.append(f"{name}.{node.name}.{method.name}")
    return found


def test_every_public_name_says_what_it_is() -> None:
    assert undescribed(modules()) == []


def test_what_says_nothing_is_found() -> None:
    text = '''"""A module of two classes."""
class Base:
    """A class that describes f."""
    def f(self):
        """What f gives."""
    def g(self): ...
class Derived(Base):
    """A class that describes nothing."""
    def f(self): ...
    def g(self): ...
    def _h(self): ...
def alone(): ...
'''
    assert undescribed({"m": ast.parse(text), "n": ast.parse("x = 1")}) == [
        "n", "m.Base.g", "m.Derived.g", "m.alone",
    ]  # fmt: skip
