"""A YAML file of a group, as the command line would choose it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robode.config.config import Choice, DataConfig, Group, TrainConfig

GROUPS = ("model", "data", "suite", "integrator", "encoder", "head", "augment")


@dataclass(frozen=True)
class Described:
    """A YAML file of a group (of GROUPS). configs: as `robode train` composes them with this file chosen: of a family
    one for each integrator of its list, of an integrator, an encoder or a head one for each family that carries it."""

    group: str
    name: str
    file: Path
    configs: tuple[TrainConfig, ...]

    @property
    def section(self) -> Choice | DataConfig | Group:
        """What the file describes."""
        found: Choice | DataConfig | Group = getattr(self.configs[0], self.group)
        return found
