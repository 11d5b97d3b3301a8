"""Which code made a number: a digest of the classes that a configuration names and of the modules that these import.

A module counts by its syntax tree without docstrings and comments, so that a sentence changes no digest. robode's own
modules count, those of the packages that the configuration names a class of or that ROBODE_TRUST lists, and every other
one that is not installed, such as a file beside the package. Installed libraries have versions. Files are found and
read, never imported: no torch, and each file once a process, because what a long process has loaded does not change
when a file does.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import EllipsisType
from typing import TypeAlias

from robode.config.config import Node, Value
from robode.config.instantiate import inside, targets, trusted
from robode.files import read_json, write_json
from robode.runs.identity import training_config

RECORD = "environment.json"  # in a run's folder; its CODE is the digest of the code that trained the run
CODE = "code_digest"
QUESTIONS = "questions.json"  # in a run's folder: the digest of a perturbation and a protocol -> the classes of it
ATTESTED = Path(__file__).with_name("attested.json")
OURS = "robode"
LIBRARIES = ("torch", "lightning", "torchmetrics")  # a configuration may name their classes; versions say which
SETTLED = (OURS, *LIBRARIES)  # lie where they lie as long as a process runs
INSTALLED = ("site-packages", "dist-packages")  # what pip and distributions call the folders of libraries
# Where following imports begins, beside the classes of the configuration: what always trains, and what always measures.
TRAINING = ("robode.training.assembly",)
MEASURING = ("robode.network", "robode.evaluation.measure")
# Modules that change no number: they say, draw, check, find and write down.
SILENT = (
    "robode.report", "robode.papers", "robode.runs", "robode.config.validate", "robode.config.instantiate",
    "robode.config.config", "robode.config.parse", "robode.errors", "robode.files", "robode.foreign",
    "robode.training.progress",
)  # fmt: skip


def training_code(plain: Node) -> str:
    """12 hexadecimal digits of the code that makes the weights of a plain resolved configuration. What only
    `robode.evaluation` needs is left out: measuring during the training leaves the weights as they are."""
    return canonical(_digest(_roots(training_config(plain), TRAINING), (*SILENT, "robode.evaluation"), trusted()))


def network_code(plain: Node) -> str:
    """The same of the code that runs the network of a configuration and counts its answers, whatever the question."""
    parts = [plain.get(key) for key in ("model", "integrator", "encoder", "head", "data")]
    others = (*SILENT, "robode.masking", "robode.attacks")  # verdicts change no answer; attacks are questions
    return canonical(_digest(_roots(parts, MEASURING), others, trusted()))


def measuring_code(plain: Node, question: Value) -> str:
    """Of a row: `network_code`, a dot, and the digest of the perturbation and the protocol. question: their nodes."""
    roots = _roots(question, ())
    digest = canonical(_digest(roots, SILENT, trusted()))
    _asked[digest] = roots
    return f"{network_code(plain)}.{digest}"


def measuring_codes(plain: Node, suite: Node, protocol: Value) -> dict[str, str]:
    """`measuring_code` of every entry of a plain suite that is not null; under "" that of what the protocol measures
    besides."""
    questions: dict[str, Value] = {name: [node, protocol] for name, node in suite.items() if node is not None}
    return {name: measuring_code(plain, question) for name, question in {**questions, "": protocol}.items()}


def network_of(code: str) -> str:
    """The `network_code` of a row whose `measuring_code` is given; empty for a row without one."""
    return canonical(code).partition(".")[0]


def remember(folder: Path, codes: Iterable[str]) -> None:
    """Write down where the digests of rows that this process measures begin, so that another one can look whether they
    are still those of its code. codes: of `measuring_code`; others are passed over. Raises `JobFailed`."""
    known = read_json(folder / QUESTIONS)
    digests = {canonical(code).partition(".")[2] for code in codes}
    new = {digest: _asked[digest] for digest in sorted(digests & _asked.keys() - known.keys())}
    if new:
        write_json(folder / QUESTIONS, known | new)


@dataclass(frozen=True)
class Today:
    """What today's code makes of the rows of one run. network: its `network_code`; gone: the digests of perturbations
    and protocols that are of other code now."""

    network: str
    gone: frozenset[str]

    @classmethod
    def of(cls, folder: Path, plain: Node) -> Today:
        """For the run in a folder; plain: its configuration. Digests that `remember` was not told are believed."""
        asked = {str(digest): tuple(map(str, roots)) for digest, roots in read_json(folder / QUESTIONS).items()}
        trust = trusted()
        gone = {digest for digest, roots in asked.items() if not same(digest, _digest(roots, SILENT, trust))}
        return cls(network_code(plain), frozenset(map(canonical, gone)))

    def ran(self, code: str) -> bool:
        """Whether the network of a row with this `measuring_code` was today's; not if it has none."""
        return network_of(code) == self.network

    def measured(self, code: str) -> bool:
        """Whether today's code would measure that row alike."""
        return self.ran(code) and canonical(code).partition(".")[2] not in self.gone


def packages(plain: Node) -> list[str]:
    """The packages of others that a configuration names classes of."""
    return sorted({root.partition(".")[0] for root in _roots(plain, ())} - {OURS})


def recorded(folder: Path) -> str:
    """The digest of the code that trained the run in a folder; empty where none was kept, or nothing was trained."""
    return str(read_json(folder / RECORD).get(CODE) or "")


def same(a: str, b: str) -> bool:
    """Whether two digests are of the same code, or of code that a test of bit equality has found to do the same. An
    empty digest is that of no code."""
    return bool(a and b) and canonical(a) == canonical(b)


def canonical(digest: str) -> str:
    """The newest digest that is attested to be equal, part by part; most have no other."""
    newer = _attested()
    parts = digest.split(".")
    for i, part in enumerate(parts):
        for _ in newer:  # a chain is no longer than the table
            part = newer.get(part, part)
        parts[i] = part
    return ".".join(parts)


@cache
def _attested() -> dict[str, str]:
    """Old digest → new one, of attested.json; `reason` says which test found them equal."""
    return {str(each["old"]): str(each["new"]) for each in json.loads(ATTESTED.read_text())}


_asked: dict[str, tuple[str, ...]] = {}
"""The roots of every question that this process has asked the digest of."""


def _roots(node: Value, more: Iterable[str]) -> tuple[str, ...]:
    """The classes that a node names, without those of the libraries, and more."""
    named = {str(target) for target in targets(node)}
    return tuple(sorted({name for name in named if name.partition(".")[0] not in LIBRARIES} | set(more)))


@cache
def _digest(roots: tuple[str, ...], silent: tuple[str, ...], trust: tuple[str, ...]) -> str:
    """Of every module that is reached from the dotted names `roots` and counts. trust: packages of the user's."""
    packages = (OURS, *(root.partition(".")[0] for root in roots), *trust)
    seen: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        for name, file in _modules(waiting.pop()):
            if name == OURS:  # its version, which says nothing of what a module does
                continue
            if name not in seen and not inside(name, silent) and (inside(name, packages) or not _installed(name, file)):
                seen[name], imported = _read(file, name)
                waiting += imported
    absent = [root for root in roots if not list(_modules(root))]
    return sha256(repr((sorted(seen.items()), absent)).encode()).hexdigest()[:12]


def _installed(name: str, file: Path) -> bool:
    """Whether a module is of a library, or of Python's own: its version, and not its text, says which it is."""
    known = name.partition(".")[0] in LIBRARIES or any(folder in file.parts for folder in INSTALLED)
    return known or any(file.resolve().is_relative_to(place) for place in _standard_library())


@cache
def _standard_library() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def _modules(name: str) -> Iterable[tuple[str, Path]]:
    """Every module that importing a dotted name runs, with its file: the packages on the way too."""
    return _settled(name) if inside(name, SETTLED) else _found(name)


@cache
def _settled(name: str) -> tuple[tuple[str, Path], ...]:
    """`_found`, once a process: every digest asks for the same five hundred names."""
    return tuple(_found(name))


def _found(name: str) -> Iterator[tuple[str, Path]]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        if file := _file(parts[:count]):
            yield ".".join(parts[:count]), file


def _file(parts: list[str]) -> Path | None:
    """The file of a module; None for a class in one, and for a package without a file of its own."""
    spec = _spec(parts[0])
    if spec is None:
        return None
    if len(parts) == 1:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    suffixes = [".py", *importlib.machinery.EXTENSION_SUFFIXES]
    for place in spec.submodule_search_locations or ():
        module = Path(place, *parts[1:])
        candidates = [module / "__init__.py", *(module.with_name(module.name + suffix) for suffix in suffixes)]
        if found := next((each for each in candidates if each.is_file()), None):
            return found
    return None


def _spec(package: str) -> importlib.machinery.ModuleSpec | None:
    """Where a package lies, found without importing it."""
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None


def source_of(package: str) -> Path | None:
    """A source file of a package, which may have none of its own."""
    spec = _spec(package)
    places = spec.submodule_search_locations if spec else None
    return _file([package]) or next((file for place in places or () for file in Path(place).glob("*.py")), None)


_Written: TypeAlias = "ast.AST | list[_Written] | str | bytes | complex | EllipsisType | None"
"""What a field of a syntax tree may be."""


@cache
def _read(file: Path, name: str) -> tuple[str, list[str]]:
    """The digest of one module, and the dotted names that it imports (modules, or things in them)."""
    content = file.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # compiled, or broken: it counts as it is
        return sha256(content).hexdigest(), []
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    parts: list[str] = []
    _write(tree, parts)
    return sha256("".join(parts).encode()).hexdigest(), list(_imports(tree, package))


def _write(node: _Written, parts: list[str]) -> None:
    """A syntax tree as text, without places, docstrings and empty fields: the same in every version of Python that
    reads the file alike."""
    if isinstance(node, ast.AST):
        parts.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and not (name == "kind" and isinstance(node, ast.Constant)):
                parts.append(f" {name}=")
                _write(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        for each in node:
            if not _is_text(each):
                _write(each, parts)
    else:
        parts.append(repr(node))


def _is_text(node: _Written) -> bool:
    """A text that stands for itself: a docstring, or one beneath a name."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


_MAY_IMPORT = (ast.stmt, ast.excepthandler, ast.match_case)  # most of a tree are expressions


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a module of a package imports, in functions too; not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from (f"{base}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and _name(child.test) == "TYPE_CHECKING":
            yield from (name for each in child.orelse for name in _imports(ast.Module([each], []), package))
        elif isinstance(child, _MAY_IMPORT):
            yield from _imports(child, package)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
