"""A YAML file of a group, as the command line would choose it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from robode.config.config import Node
from robode.errors import BadInput


@dataclass(frozen=True)
class Described:
    """A YAML file of a group. configs: plain wholes as `robode train` composes them with this file chosen: of a family
    one for each integrator of its list, of an integrator, an encoder or a head one for each of those that carry it."""

    group: str
    name: str
    file: Path
    configs: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """What the file describes."""
        return section(self.configs[0], self.group)


def section(config: Node, key: str) -> Node:
    """What a key of a plain configuration holds. Raises `BadInput` where that is no mapping."""
    found = config[key]
    if not isinstance(found, Mapping):
        raise BadInput(f"{key}={found}: expected keys of its own")
    return found
