"""Which configurations can be trained together: one line for everything that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from robode.errors import BadInput
from robode.identity import differences
from robode.instantiate import to_plain

# Callbacks that only look: stopping or changing one of the networks would be no business of the others.
CALLBACKS = ("robode.training.callbacks.BSMLogger", "robode.training.sweep.RobustnessSweep")
# Optimisers that treat every entry of every tensor alike, so that stacking changes nothing.
ELEMENTWISE = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
PRECISIONS = ("32", "32-true", "64", "64-true")
TRAINER = ("name", "accelerator", "devices", "strategy", "precision", "threads", "fast_dev_run")
TOGETHER = "where several seeds train together"


def check_batch(configs: Sequence[DictConfig]) -> None:
    """Refuse what `train_batched` cannot do. Imports no torch, reads and writes nothing.

    Raises:
        BadInput: configurations that differ in more than their seed, equal seeds, or a trainer, optimiser or callback
        that treats the networks as one.
    """
    plain = [to_plain(config) for config in configs]
    seeds = [each["seed"] for each in plain]
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds: expected different ones, got {', '.join(map(str, seeds))}")
    for other in plain[1:]:
        for key, one, two in differences(plain[0], other):
            if key != "seed":
                raise BadInput(f"{key}: expected one value {TOGETHER}, got {one} and {two}")
    _check_trainer(plain[0]["trainer"])
    _check_callbacks(plain[0]["callbacks"])
    target = str(plain[0]["optimizer"]["optimizer"]["_target_"])
    if target.rpartition(".")[2] not in ELEMENTWISE or not target.startswith("torch.optim."):
        raise BadInput(
            f"optimizer: expected one of torch's {', '.join(ELEMENTWISE)} {TOGETHER}, got {target}; "
            "train the seeds one by one"
        )


def _check_trainer(node: Mapping[str, Any]) -> None:
    """One process, one arithmetic, and none of Lightning's further options."""
    if node["devices"] not in (1, "auto") or node["strategy"] != "auto":
        raise BadInput(f"trainer={node['name']}: expected one process {TOGETHER}; choose trainer=cpu or trainer=gpu")
    if str(node["precision"]) not in PRECISIONS:
        raise BadInput(f"trainer.precision: expected 32-true or 64-true {TOGETHER}, got {node['precision']}")
    for key in node:
        if key not in TRAINER:
            raise BadInput(f"trainer.{key}: expected only {', '.join(TRAINER)} {TOGETHER}; train the seeds one by one")


def _check_callbacks(nodes: Mapping[str, Any]) -> None:
    for name, node in nodes.items():
        if node is not None and node["_target_"] not in CALLBACKS:
            raise BadInput(
                f"callbacks.{name}: expected only bsm and robustness_sweep {TOGETHER}, got {node['_target_']}; "
                "leave it out, or train the seeds one by one"
            )
