"""Takes a recorded learner step again, and once more under other settings.

From the newest checkpoint below the step, or from the starting model, the recorded steps up to it are taken in order, under the
run's own settings, so that weights, optimizer, reference and control are those that the step met. One process, whatever the run
had: a checkpoint fits every number of ranks. Nothing of the run is changed.
"""

import gc
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.batch.sift import sift, tally
from learner.checkpoint import Checkpoints
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.loop import move_reference
from learner.ranks import TakenStep, Team
from learner.recorded_steps import RecordedStep, read_recorded, recorded
from learner.run_state import RunState
from services.config import RunConfig
from services.errors import InputError
from services.run.checkpoint_files import visible_damage
from services.run.checkpoint_names import checkpoints_in, policy_version_of
from services.run.folder import RunFolder
from services.run.json_text import finite

COMPARED = ("loss", "grad_norm", "ess_ratio", "lr_factor", "reference_gap", "entropy", "tokens")
"""Figures of a step's report."""


@dataclass(frozen=True)
class Place:
    """Where a replay begins, and what it takes to get to the step."""

    policy_version: int
    checkpoint: Path | None
    """None: the starting model."""
    steps: Sequence[Path]
    """Recorded steps, the one to replay last."""


@dataclass
class Replayed:
    """A step that was taken again."""

    figures: dict[str, float | None]
    """The figures of COMPARED."""
    probes: list[list[float]]
    """Log-probs of the recorded probes under the weights after it, nats."""
    gradient: dict[str, Tensor] = field(repr=False, default_factory=dict)
    """By parameter, flat: the step's gradient as Adam got it; with several mini-batches their sum, the later ones weighing more.
    Empty where no step was applied."""


def place_of(run: RunFolder, step: int) -> Place:
    """Where the replay of a step begins. Raises InputError, which says which steps can be replayed."""
    kept = recorded(run.replay)
    starts: dict[int, Path | None] = {0: None}
    starts |= {policy_version_of(one): one for one in checkpoints_in(run.checkpoints) if visible_damage(one) is None}
    begin = _beginning(step, kept, starts)
    if begin is not None:
        return Place(begin, starts[begin], [kept[number] for number in range(begin + 1, step + 1)])
    possible = [number for number in kept if _beginning(number, kept, starts) is not None]
    why = (
        f"its groups were not kept in {run.replay}"
        if step not in kept
        else "there is no whole checkpoint before it from which every step up to it was kept"
    )
    can = f"Steps that can: {_ranges(possible)}" if possible else "No step can"
    raise InputError(
        f"step {step} of {run.path} cannot be replayed: {why}. {can}. A run keeps the groups of its newest "
        "learner.checkpoint.replay_steps steps"
    )


def _beginning(step: int, kept: Collection[int], starts: Collection[int]) -> int | None:
    """The newest version to begin with; None: there is none from which every step was kept."""
    for version in range(step - 1, -1, -1):
        if version + 1 not in kept:
            return None
        if version in starts:
            return version
    return None


def _ranges(numbers: Sequence[int]) -> str:
    """Such as "3, 5-9"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def replay(
    config: RunConfig, place: Place, altered: RunConfig | None, tell: Callable[[str], None] = lambda _: None
) -> tuple[RecordedStep, Replayed, Replayed | None]:
    """The recorded step, what it came to now, and what it comes to with the settings `altered`, where they are given.

    Raises InputError where a checkpoint or a recorded step is damaged, or the settings do not fit the checkpoint.
    """
    config = _alone(config)
    with tempfile.TemporaryDirectory(prefix="ratchet-replay-") as folder:
        before = Path(folder) / "before"
        before.mkdir()
        engine = _engine(config)
        state = _begin(config, engine, place)
        team = Team(config, engine)
        for path in place.steps[:-1]:
            step = read_recorded(path)
            tell(f"step {step.step}")
            _take(config, team, state, step)
        step = read_recorded(place.steps[-1])
        tell(f"step {step.step}")
        if altered is not None:
            engine.save(before)
            engine.is_saved(wait=True)
        own = _replayed(config, team, engine, step)
        if altered is None:
            return step, own, None
        altered = _alone(altered)
        del team, engine  # a device may hold one of them; the process group serves both
        gc.collect()
        torch.cuda.empty_cache()
        tell(f"step {step.step} with other settings")
        other = _engine(altered)
        other.load(before)
        return step, own, _replayed(altered, Team(altered, other), other, step)


def _alone(config: RunConfig) -> RunConfig:
    """The settings of one process."""
    return config.model_copy(update={"learner": config.learner.model_copy(update={"ranks": 1})})


def _engine(config: RunConfig) -> DeepSpeedEngine:
    return DeepSpeedEngine(config.model, config.learner, config.device, seed=config.seed)


def _begin(config: RunConfig, engine: DeepSpeedEngine, place: Place) -> RunState:
    """Load the weights, and return the state beside them."""
    if place.checkpoint is None:
        return RunState.begin(config.learner)
    saved = Checkpoints.state(place.checkpoint)
    if (fault := engine.damage(place.checkpoint)) is not None:
        raise fault
    engine.load(place.checkpoint)
    return RunState.from_dict(config.learner, saved)


def order_of(config: RunConfig, step: RecordedStep) -> dict[str, Any]:
    """What `Team.step` is given for a recorded step under these settings."""
    sifted = [sift(group, step.policy_version, config.learner) for group in step.groups]
    return {
        "groups": [one for one in sifted if one.drop is None],
        "tally": tally(step.groups, sifted),
        "policy_version": step.policy_version,
        "learning_rate": step.learning_rate,
        "full_ess_ratio": step.full_ess_ratio,
    }


def _take(config: RunConfig, team: Team, state: RunState, step: RecordedStep) -> TakenStep:
    """Take a step as the training loop does."""
    taken = team.step(**order_of(config, step))
    move_reference(team, state.count_step(taken.report), state.ratchet.reference_version)
    return taken


def _replayed(config: RunConfig, team: Team, engine: DeepSpeedEngine, step: RecordedStep) -> Replayed:
    beta1 = config.learner.optimizer.beta1
    before = engine.averages("exp_avg")
    taken = team.step(**order_of(config, step))
    after = engine.averages("exp_avg")
    applied = taken.report.skipped is None
    gradient = {
        name: (average - beta1 * before[name] if name in before else average) / (1 - beta1)
        for name, average in (after.items() if applied else ())
    }
    report = finite({name: getattr(taken.report, name) for name in COMPARED})
    probes = team.probe_logps([tuple(tokens) for tokens, _ in step.probes])
    return Replayed(report, probes, gradient)


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """The cosine of the angle between two gradients, over the parameters of both; None where one is zero or was not applied."""
    names = [name for name in a if name in b]
    dot, first, second = (
        float(sum(torch.dot(x[name].double(), y[name].double()) for name in names)) for x, y in ((a, b), (a, a), (b, b))
    )
    return dot / (first * second) ** 0.5 if first > 0 and second > 0 else None
