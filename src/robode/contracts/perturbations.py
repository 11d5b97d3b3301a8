"""What every corruption and every attack promises, under a protocol and for data of one kind."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robode.attacks.balls import NORMS, length
from robode.corruptions.noise import DRAWS, PerSampleRNG, base_noise
from robode.corruptions.perturbation import Batch, Curve, Perturbation, clip
from robode.corruptions.protocols import EvaluationProtocol
from robode.data.batches import evaluating, in_units
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan, Row, refusals
from robode.tasks.classification import Classification

N, REPEATS, SEED = 117, 3, 5
CUTS = (0, 1, 50, 73, N)  # on and beside the edges of the noise blocks
ROUNDING = 1e-6  # sums round with the length of a batch
BESIDE = 1e-5  # relative: what float32 may add to a radius

INFO = {
    "grey": DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c"))),
    "colour": DatasetInfo((3, 4, 4), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (0.0, 1.0), Classification(("a", "b", "c"))),
    "vectors": DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b", "c"))),
}


@dataclass(frozen=True)
class Scene:
    """Samples x (N, *shape), uint8 images or float32 vectors, with targets, a network that takes them, and how it is
    evaluated."""

    network: nn.Module
    protocol: EvaluationProtocol
    info: DatasetInfo
    x: Tensor
    targets: Tensor

    def batch(
        self, perturbation: Perturbation, start: int = 0, stop: int = N, repeat: int = 0, seed: int = SEED
    ) -> Batch:
        """What a perturbation is given of the samples start, ..., stop - 1, with random numbers of their own."""
        kind = perturbation.noise
        noise = None if kind is None else base_noise(kind, seed, repeat, start, stop, self.info.shape)
        x, targets = in_units(self.x[start:stop]).clone(), self.targets[start:stop].clone()
        given = Batch(x, targets, noise, self.info.bounds)
        if not perturbation.in_data_units:
            given = self.protocol.batch(x, targets, noise, self.info)
        draws = PerSampleRNG((seed, repeat, DRAWS), range(start, stop))
        return replace(given, rng=draws, prepared=perturbation.prepare(self.network, self.info.shape))

    def moved(self, perturbation: Perturbation, level: float, batch: Batch) -> Tensor:
        """x' at one level, in the space in which the perturbation acts."""
        with evaluating(self.network):
            (found,) = perturbation.perturbed(self.network, self.info.task, batch, [level])
        return found

    def curve(self, perturbation: Perturbation, levels: Sequence[float]) -> Curve:
        """The whole curve of the first samples."""
        batch = self.batch(perturbation, 0, CUTS[2])
        with evaluating(self.network):
            return perturbation.scores(self.network, self.info.task, batch, levels)

    def decoded(self, perturbation: Perturbation, moved: Tensor) -> Tensor:
        """x' in data units."""
        return moved if perturbation.in_data_units else self.protocol.decode(moved, self.info)


@dataclass(frozen=True)
class Case:
    """A perturbation in a scene that it does not refuse."""

    perturbation: Perturbation
    scene: Scene

    @property
    def levels(self) -> list[float]:
        """Ascending."""
        return sorted(self.perturbation.severities)


def refusal(perturbation: Perturbation, protocol: EvaluationProtocol, info: DatasetInfo) -> str | None:
    """Why it makes no sense for such data under the protocol, or None."""
    try:
        return refusals({"it": perturbation}, protocol, info).get("it")
    except BadInput as error:
        return str(error)


# ---- the contracts --------------------------------------------------------------------------------------------------


def it_says_what_it_is(case: Case) -> list[str]:
    """What the rows of a results file carry."""
    found, each = [], case.perturbation
    for name in ("name", "suite", "severity_unit", "norm"):
        if not isinstance(getattr(each, name, None), str) or not getattr(each, name):
            found.append(f"{name} is {getattr(each, name, None)!r}, expected a text")
    if not each.severities or not all(isinstance(level, float) for level in each.severities):
        found.append(f"severities are {each.severities!r}, expected at least one float")
    return found


def shape_type_and_bounds_are_kept(case: Case) -> list[str]:
    """float32 like the samples, finite, and inside the bounds of the space in which it acts."""
    found, scene, each = [], case.scene, case.perturbation
    for level in case.levels:
        batch = scene.batch(each)
        moved = scene.moved(each, level, batch)
        expected, bounds = tuple(scene.x.shape), batch.bounds
        for where, x in (("x'", moved), ("x' in data units", scene.decoded(each, moved))):
            if tuple(x.shape) != expected or x.dtype != torch.float32:
                found.append(f"{where} at {level:g} is {tuple(x.shape)} {x.dtype}, expected {expected} float32")
        if not bool(moved.isfinite().all()):
            found.append(f"x' at {level:g} is not finite")
        elif each.corrupts and bounds and not bounds[0] <= moved.min() <= moved.max() <= bounds[1]:
            found.append(f"x' at {level:g} lies in [{moved.min():g}, {moved.max():g}], outside the bounds {bounds}")
        if each.stochastic and level > 0 and torch.equal(moved, scene.batch(each).x):
            found.append(f"x' at {level:g} is x, though the noise is not zero")
    return found


def its_inputs_stay_as_they_are(case: Case) -> list[str]:
    """Samples, targets and noise belong to others too."""
    found, each = set(), case.perturbation
    for level in case.levels:
        batch, before = case.scene.batch(each), case.scene.batch(each)
        case.scene.moved(each, level, batch)
        for name in ("x", "targets", "noise"):
            value = getattr(batch, name)
            if value is not None and not torch.equal(value, getattr(before, name)):
                found.add(f"it changes batch.{name}, which belongs to others too")
    return sorted(found)


def samples_depend_on_seed_repeat_and_index_alone(case: Case) -> list[str]:
    """Not on the batch that they are in, nor on torch's generator. Where a search goes rounding decides: the scores of
    attacks are compared by `batches_change_no_score`."""
    found, scene, each = [], case.scene, case.perturbation
    if each.attacks:
        return []
    for level in case.levels:
        torch.manual_seed(1)
        whole = scene.moved(each, level, scene.batch(each))
        torch.manual_seed(2)
        parts = [scene.moved(each, level, scene.batch(each, a, b)) for a, b in zip(CUTS, CUTS[1:], strict=False)]
        if not torch.allclose(torch.cat(parts), whole, rtol=0, atol=ROUNDING):
            found.append(f"x' at {level:g} depends on the batch that a sample is in, or on torch's generator")
        differs = each.stochastic and level > 0
        for what, other in (("repeat", {"repeat": 1}), ("seed", {"seed": SEED + 1})):
            if torch.equal(scene.moved(each, level, scene.batch(each, **other)), whole) == differs:
                expected = "the same" if differs else "another"
                found.append(f"x' at {level:g} is {expected} for another {what}, and noise is {each.noise!r}")
    return found


def batches_change_no_score(case: Case) -> list[str]:
    """Rows of an evaluation are the same, to the last bit, whatever the size of a batch. What the protocol adds has its
    rows beside those of other perturbations only."""
    each, scene = case.perturbation, case.scene
    if each in scene.protocol.extras:
        return []
    small, large = (rows(scene, {each.name: each}, batch_size=size) for size in (1, 1000))
    return [] if small == large else ["the scores depend on the size of a batch"]


def scoring_leaves_no_trace(case: Case) -> list[str]:
    """Neither in the perturbation, nor in the network, nor in torch's generator."""
    each, scene = case.perturbation, case.scene
    before, weights, generator = copy.deepcopy(each), _state(scene.network), torch.get_rng_state()
    scene.curve(each, case.levels)
    found = [] if torch.equal(torch.get_rng_state(), generator) else ["scoring moves torch's generator"]
    old, new = vars(before), vars(each)
    changed = [name for name in {**old, **new} if not _same(old.get(name), new.get(name))]
    if changed:
        found.append(f"scoring changes its attribute {', '.join(sorted(changed))}: nothing may be kept between calls")
    after = _state(scene.network)
    if after.keys() != weights.keys() or not all(torch.equal(after[name], weights[name]) for name in weights):
        found.append("scoring changes the network")
    if any(p.grad is not None or not p.requires_grad for p in scene.network.parameters()):
        found.append("scoring leaves gradients in the network, or switches them off")
    return found


def one_call_is_level_by_level(case: Case) -> list[str]:
    """(L, B) scores, of which each row is what that level alone has."""
    each, scene, levels = case.perturbation, case.scene, case.levels
    scores = scene.curve(each, levels).scores
    if tuple(scores.shape) != (len(levels), CUTS[2]) or scores.dtype != torch.float32:
        return [f"scores are {tuple(scores.shape)} {scores.dtype}, expected {(len(levels), CUTS[2])} float32"]
    apart = [scene.curve(each, [level]).scores[0] for level in levels]
    return [
        f"the scores at {level:g} are others when it is the only level"
        for level, row, alone in zip(levels, scores, apart, strict=True)
        if not torch.equal(row, alone)
    ]


def an_attack_stays_in_its_ball(case: Case) -> list[str]:
    """x' is within eps of x, clipped to the bounds of the space in which it acts, in the norm that the attack names."""
    found, each, scene = [], case.perturbation, case.scene
    if not each.attacks or each.norm not in NORMS:
        return []
    for level in case.levels:
        batch = scene.batch(each)
        centre = clip(scene.batch(each).x.clone(), batch.bounds)
        farthest = float(length(scene.moved(each, level, batch) - centre, each.norm).max())
        if not farthest <= level * (1 + BESIDE) + ROUNDING:
            found.append(f"x' is {farthest:.6g} from x in {each.norm}, beyond eps = {level:g}")
    return found


def the_curve_of_an_attack_never_gets_better(case: Case) -> list[str]:
    """What has failed at a smaller eps counts at a larger one."""
    each, levels, task = case.perturbation, case.levels, case.scene.info.task
    if not each.attacks:
        return []
    scores = case.scene.curve(each, levels).scores
    return [
        f"some samples score better at {b:g} than at {a:g}"
        for a, b, before, after in zip(levels, levels[1:], scores, scores[1:], strict=False)
        if not torch.equal(task.worse(before, after), after)
    ]


CONTRACTS = (
    it_says_what_it_is, shape_type_and_bounds_are_kept, its_inputs_stay_as_they_are,
    samples_depend_on_seed_repeat_and_index_alone, batches_change_no_score, scoring_leaves_no_trace,
    one_call_is_level_by_level, an_attack_stays_in_its_ball, the_curve_of_an_attack_never_gets_better,
)  # fmt: skip


# ---- what they share ------------------------------------------------------------------------------------------------


def rows(scene: Scene, suite: dict[str, Perturbation], batch_size: int = 500) -> list[Row]:
    """Those of an evaluation, without the seconds that they took."""
    plan = Plan(suite, scene.protocol, scene.info, REPEATS, SEED)
    found = evaluate_suite(scene.network, scene.x, scene.targets, plan, batch_size)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def scene_for(kind: str, protocol: EvaluationProtocol) -> Scene:
    """Samples of a kind of `INFO` with labels, and a small network."""
    from robode.families.hdnn import HDNN
    from robode.integrators.euler import Euler
    from robode.network import Network

    info, generator = INFO[kind], torch.Generator().manual_seed(3)
    shape = (N, *info.shape)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    x = pixels if info.bounds else torch.randn(shape, generator=generator)
    targets = torch.randint(0, info.task.outputs, (N,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = Network(info, HDNN(4, 2, Euler()))
    return Scene(network, protocol, info, x, targets)


def hurried(perturbation: Perturbation) -> Perturbation:
    """An attack with hardly any steps keeps the same promises, and so does smoothing with few draws; and two levels
    make a curve."""
    found = copy.copy(perturbation)
    if found.attacks:
        found.severities = tuple(dict.fromkeys((min(found.severities), max(found.severities))))
    for count, few in {"steps": 3, "queries": 4, "targets": 1, "restarts": 1, "n0": 10, "n": 60}.items():
        if isinstance(getattr(found, count, None), int) and getattr(found, count) > few:
            setattr(found, count, few)
    return found


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _same(a: object, b: object) -> bool:
    """Whether two attributes are equal, tensors and plain objects by what is in them."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return _same(vars(a), vars(b)) if hasattr(a, "__dict__") and not callable(a) else bool(a == b)
