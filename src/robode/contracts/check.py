"""`robode check [PACKAGE] [GROUP=NAME]`: hold the contracts against what YAML files describe, refused without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from robode.config.config import TrainConfig, plain
from robode.config.explain import nearest, unknown_choice
from robode.config.instantiate import TRUST, check_keys, inside, targets, trusted
from robode.config.listing import options
from robode.config.paths import conf_dir, user_conf_dirs
from robode.contracts.described import GROUPS, Described
from robode.errors import BadInput

if TYPE_CHECKING:
    from robode.contracts.findings import Finding

CARRIED = ("integrator", "encoder", "head")  # what is tried in a family of robode's
CARRIERS = ("resnet", "hdnn", "chnode", "gradient_flow")

HELP = f"""\
usage: robode check [PACKAGE] [GROUP=NAME ...] [--config-dir DIR]

Holds the contracts that robode's own parts are tested by against families, data sets, augmentations, corruptions and
attacks.

  without PACKAGE    everything in robode's own configuration
  PACKAGE            what the YAML files of yours name a class of that package for: model/, data/, suite/, integrator/,
                     encoder/, head/ and augment/ in ./conf, --config-dir and $ROBODE_CONFIG_PATH; the package can be
                     imported and is named in the environment variable {TRUST}
  GROUP=NAME         only this one, as `robode train GROUP=NAME` would take it: model=damped, data=squares, suite=shapes

  --config-dir DIR   more YAML files
  --help             this text

Each thing is built small, and has one row: how many contracts were held against it, and ok or what is broken.
Exit code: 0 all hold, 1 a contract is broken, 2 bad input."""


def run_check(words: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> int:
    """Check all that a package of the user's brings, or robode's own configuration, or what GROUP=NAME chooses; print a
    table.

    Returns:
        0, or 1 if a contract is broken.

    Raises:
        BadInput: a package that is not trusted, not there or not described by any YAML, no such group or name, or a
            class that cannot be imported.
    """
    packages, chosen = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if len(packages) > 1:
        raise BadInput(f"robode check {' '.join(packages)}: expected one package")
    package = packages[0] if packages else None
    if package is not None:
        check_package(package)
    if chosen:
        found = only(chosen, package, config_dirs)
    else:
        found = ours() if package is None else theirs(package, config_dirs)
    for each in found:
        check_keys(plain(each.section))
    from rich.console import Console

    from robode.contracts.findings import findings
    from robode.runs.progress import bar

    console, rows = Console(), []
    with bar(console) as shown:
        task = shown.add_task("checking", total=len(found), note="")
        for each in found:
            shown.update(task, note=f"{each.group}={each.name}")
            rows += findings(each, package)
            shown.advance(task)
    _print(rows)
    return 1 if any(row.violations for row in rows) else 0


def ours() -> list[Described]:
    """Everything in robode's own configuration."""
    return list(_composed([(group, name) for group in GROUPS for name in options(group)], ()))


def only(chosen: Sequence[str], package: str | None, config_dirs: Sequence[str]) -> list[Described]:
    """What each GROUP=NAME chooses, robode's or the user's. Raises `BadInput` for none, and for what names no class of
    the package."""
    files = [word.partition("=")[::2] for word in chosen]
    for group, name in files:
        if group not in GROUPS:
            hint = f"did you mean {near}? " if (near := nearest(group, GROUPS)) else ""
            raise BadInput(f"robode check {group}={name}: {hint}expected one of {', '.join(GROUPS)}, and a name")
        if name not in (known := options(group, user_conf_dirs(config_dirs))):
            raise BadInput(f"robode check {unknown_choice(group, name, known)}")
    found = list(_composed(files, config_dirs))
    for each in found:
        if package is not None and not named(each, package):
            raise BadInput(f"robode check {package} {each.group}={each.name}: {each.file.name} names no class of it")
    return found


def check_package(package: str) -> None:
    """Raises `BadInput` for a name of none, robode itself, one that is not trusted or not there."""
    if not all(part.isidentifier() for part in package.split(".")):
        raise BadInput(f"robode check {package}: expected the name of a package")
    if inside(package, ("robode",)):
        raise BadInput(f"robode check {package}: robode's own parts are checked by 'robode check', without a package")
    if not inside(package, trusted()):
        raise BadInput(f"robode check {package}: the package is not trusted; set {TRUST}={package} in the environment")
    if find_spec(package.split(".")[0]) is None:
        raise BadInput(f"robode check {package}: the package cannot be imported; install it or set PYTHONPATH")


def theirs(package: str, config_dirs: Sequence[str]) -> list[Described]:
    """What the user's YAML files name a class of the package for. Raises `BadInput`."""
    folders = user_conf_dirs(config_dirs)
    files = [(group, file.relative_to(folder / group).with_suffix("").as_posix())
             for folder in folders for group in GROUPS for file in sorted((folder / group).rglob("*.yaml"))
             if _speaks_of(file, package)]  # fmt: skip
    found = [each for each in _composed(files, config_dirs) if named(each, package)]
    if not found:
        looked = ", ".join(str(folder) for folder in folders) or "no folder: there is no ./conf"
        raise BadInput(
            f"robode check {package}: no YAML file names a class of it; looked for {', '.join(GROUPS)} in {looked} "
            "(--config-dir and ROBODE_CONFIG_PATH add folders)"
        )
    return found


def named(each: Described, package: str) -> bool:
    """Whether a class of the package stands anywhere in what a file describes."""
    found = targets(plain(each.section))
    return any(isinstance(target, str) and inside(target, (package,)) for target in found)


def _speaks_of(file: Path, package: str) -> bool:
    """Whether a file may name the package, itself or through another one; the others are not even composed."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return package in text or "defaults" in text


def _composed(files: Sequence[tuple[str, str]], config_dirs: Sequence[str]) -> Iterator[Described]:
    """Each file as the command line would choose it. Raises `BadInput` for a file that cannot be composed."""
    folders = tuple(os.path.abspath(folder) for folder in config_dirs)
    for group, name in dict.fromkeys(files):
        first = _compose((f"{group}={name}",), folders)
        others: list[str] = []
        if group == "model":
            listed = first.model.about.get("integrators") or ()
            assert isinstance(listed, Sequence)
            others = [f"integrator={each}" for each in listed]
        elif group in CARRIED:
            others = [f"model={each}" for each in CARRIERS]
        configs = tuple(_compose((f"{group}={name}", other), folders) for other in others)
        yield Described(group, name, _file(group, name, folders), configs or (first,))


def _compose(overrides: tuple[str, ...], folders: tuple[str, ...]) -> TrainConfig:
    from robode.config.compose import Request, compose_trainings

    (config,) = compose_trainings(Request("train", overrides, config_dirs=folders))
    return config


def _file(group: str, name: str, config_dirs: Sequence[str]) -> Path:
    """The one that is chosen where several folders have it: robode's own first."""
    places = (folder / group / f"{name}.yaml" for folder in (conf_dir(), *user_conf_dirs(config_dirs)))
    return next(place for place in places if place.is_file())


def causes(violations: Sequence[str]) -> tuple[str, ...]:
    """One line for each cause, behind the contracts that it breaks."""
    broken: dict[str, list[str]] = {}
    for line in violations:
        contract, colon, cause = line.partition(": ")
        broken.setdefault(cause if colon else line, []).extend([contract] * bool(colon))
    return tuple(
        f"{', '.join(names[:2])}{f' and {len(names) - 2} more' if names[2:] else ''}{': ' if names else ''}{cause}"
        for cause, names in broken.items()
    )


def _print(rows: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # one violation a line for grep
        console = Console(width=250)
    table = Table(box=None, header_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("contracts", justify="right")
    table.add_column("found", overflow="fold")
    shown: dict[tuple[str, ...], str] = {}
    for row in rows:
        lines = causes(row.violations) or (row.note or "ok",)
        if row.violations and shown.setdefault(lines, row.what) != row.what:
            lines = (f"the same as {shown[lines]}",)
        table.add_row(escape(row.what), str(row.contracts), escape(lines[0]))
        for line in lines[1:]:
            table.add_row("", "", escape(line))
    console.print(table)
    broken = sum(bool(row.violations) for row in rows)
    print(f"check: {len(rows)} checked, {f'{broken} with a broken contract' if broken else 'ok'}")
