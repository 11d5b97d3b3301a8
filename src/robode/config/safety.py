"""What a configuration may not do: steer Hydra itself, whose callbacks, logging and plugins run code."""

from collections.abc import Iterator, Mapping, Sequence

from hydra.core.override_parser.types import Override

from robode.config.config import Node, Value
from robode.errors import BadInput

# Keys under `hydra` that a command line may set; `_target_` is refused in all of them.
ALLOWED = ("hydra/launcher", "hydra.launcher.", "hydra.verbose")
# Nodes that Hydra fills in for each job; everything else must be as it would be without the user's files.
FILLED_IN_BY_HYDRA = ("overrides", "runtime", "job")
PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.", "robode.launch.")


def check_overrides(overrides: Sequence[Override]) -> list[str]:
    """Refuse overrides that steer Hydra, apart from the launcher and verbosity.

    Returns:
        Those for Hydra that are allowed, as typed.

    Raises:
        BadInput: one outside the list, or one that names a class.
    """
    allowed = []
    for override in overrides:
        key = override.key_or_group
        if override.package is not None and override.package.split(".")[0] == "hydra":
            raise BadInput(f"{override.input_line}: a configuration may not be placed under 'hydra'")
        if key != "hydra" and not key.startswith(("hydra.", "hydra/")):
            continue
        if not key.startswith(ALLOWED) or "_target_" in str(override.input_line) or override.is_delete():
            raise BadInput(
                f"{override.input_line}: only hydra/launcher, hydra.launcher.* and "
                "hydra.verbose may be set, and none of them may name a class"
            )
        allowed.append(str(override.input_line))
    return allowed


def check_hydra_node(node: Node, ours: Node) -> None:
    """Refuse a composed ``hydra`` node that a user's configuration file has changed.

    Args:
        node: the plain, unresolved ``hydra`` node of one job.
        ours: the same node composed without any of the user's choices except the allowed overrides.

    Raises:
        BadInput: naming the first key that differs, or a class that is not a Hydra plugin.
    """
    for key in sorted({*node, *ours}):
        if key not in FILLED_IN_BY_HYDRA and node.get(key) != ours.get(key):
            raise BadInput(f"a configuration file sets hydra.{key}: files may not steer Hydra; remove it")
    job, expected = node["job"], ours["job"]
    assert isinstance(job, Mapping) and isinstance(expected, Mapping)
    for key in ("env_set", "env_copy", "chdir", "config"):
        if job.get(key) != expected.get(key):
            raise BadInput(f"a configuration file sets hydra.job.{key}: files may not steer Hydra; remove it")
    for name in ("launcher", "sweeper"):
        for place, target in _targets(node[name], f"hydra.{name}"):
            if place != f"hydra.{name}._target_" or not str(target).startswith(PLUGINS):
                raise BadInput(f"{place}={target}: a {name} must be robode's or one of Hydra's installed plugins")


def _targets(node: Value, place: str) -> Iterator[tuple[str, Value]]:
    """Every ``_target_`` in a plain tree, with its dotted place."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield f"{place}.{key}", value
            else:
                yield from _targets(value, f"{place}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{place}.{index}")
