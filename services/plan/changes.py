"""What to change where a run does not fit: settings, in order of what they cost, each tried by computing the plan again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from services.config import RunConfig
from services.config.rollout import CPU_CACHE_GIB
from services.plan.plan import REPLICA, Machine, Plan, gpus_of_replicas, plan, with_settings
from services.plan.replica import fraction_of_gpu

Settings = Mapping[str, Any]
"""Dotted key -> its value."""
SMALL_CHUNK = 256
"""Rows of logits below which the head's matrix products begin to be slow."""
SMALL_CACHE_GIB = 0.5
FRACTIONS = (0.8, 0.7, 0.6, 0.5)
"""Values of rollout.gpu_memory_fraction that are tried."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of settings."""

    words: str
    """As the user types it."""
    cost: str
    saves_bytes: int
    """What it saves in that place, of those that do not fit, where it saves most."""
    suffices: bool
    """Whether the run fits with it alone."""


def stages(base: Plan) -> list[tuple[int, Plan | None]]:
    """The plan at each ZeRO stage; None where the settings refuse it."""
    return [(stage, _tried(base, {"learner.zero_stage": stage})) for stage in (0, 1, 2, 3)]


def changes(base: Plan) -> list[Change]:
    """Changes that save memory where it lacks, the cheapest first."""
    found = []
    for settings, cost in _candidates(base.asked, base.machine):
        after = _tried(base, settings)
        if after is None:
            continue
        saved = _saved(base, after)
        solved = len(after.faults) < len(base.faults)
        if saved > 0 or solved:
            found.append(Change(in_words(settings), cost, saved, after.fits))
    return found


def together(base: Plan) -> str | None:
    """Changes with which the run fits, none of which can be left out, in words; None: there are none.

    Taken as long as they help, the cheapest first; then those are dropped that the later ones made needless, the dearest first.
    """
    taken: list[Settings] = []
    now = base
    for settings, _ in _candidates(base.asked, base.machine):
        after = _tried(base, _merged([*taken, settings]))
        if after is not None and (_saved(now, after) > 0 or len(after.faults) < len(now.faults)):
            taken.append(settings)
            now = after
        if now.fits:
            break
    if not now.fits:
        return None
    for settings in reversed(taken):
        fewer = [one for one in taken if one is not settings]
        without = _tried(base, _merged(fewer)) if fewer else None
        if without is not None and without.fits:
            taken = fewer
    return in_words(_merged(taken))


def _merged(several: Sequence[Settings]) -> dict[str, Any]:
    return {key: value for settings in several for key, value in settings.items()}


def changed(run: RunConfig, settings: Settings) -> RunConfig | None:
    """The run under other settings; None if they are refused."""
    content = run.model_dump()
    for dotted, value in settings.items():
        *sections, key = dotted.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[key] = value
    try:
        return RunConfig.model_validate(content)
    except ValidationError:
        return None


def in_words(settings: Settings) -> str:
    """As in a run file."""
    return ", ".join(f"{key} = {_toml(value)}" for key, value in settings.items())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _candidates(run: RunConfig, machine: Machine) -> Iterator[tuple[Settings, str]]:
    """Settings and what they cost, the cheapest first."""
    yield from _smaller_batches(run)
    yield from _elsewhere(run)
    if not run.learner.gradient_checkpointing:
        yield {"learner.gradient_checkpointing": True}, "about one more forward in each step"
    if run.learner.ranks > 1:
        for stage, cost in ((2, "hardly anything"), (3, "more exchange between ranks")):
            if run.learner.zero_stage < stage:
                yield {"learner.zero_stage": stage}, cost
    if run.weights.type == "nccl":
        yield {"weights.type": "gloo"}, "weights that travel through host memory, several times more slowly"
    if run.weights.delta:
        yield {"weights.delta": False}, "all bytes of the weights on the network at each step"
    yield from _more_gpus(run, machine)
    if run.model.dtype == "float32":
        settings = {"model.dtype": "bfloat16", "learner.zero_stage": max(1, run.learner.zero_stage)}
        yield settings, "rounding in every forward"
    if run.learner.checkpoint.keep > 1:
        yield {"learner.checkpoint.keep": 1}, "one checkpoint to go back to"


def _smaller_batches(run: RunConfig) -> Iterator[tuple[Settings, str]]:
    learner = run.learner
    if learner.head_chunk_tokens is None or learner.head_chunk_tokens > SMALL_CHUNK:
        yield {"learner.head_chunk_tokens": SMALL_CHUNK}, "hardly anything"
    if learner.rows_per_micro_batch > 1:
        yield {"learner.rows_per_micro_batch": 1}, "smaller forwards, and perhaps one more for the baseline"
    if learner.row_tokens > run.model.max_length:
        yield {"learner.row_tokens": run.model.max_length}, "more padding"


def _elsewhere(run: RunConfig) -> Iterator[tuple[Settings, str]]:
    reference, rollout = run.learner.reference, run.rollout
    if rollout.prepare_weights:
        yield {"rollout.prepare_weights": False}, "a pause of about a second a GiB at each swap of weights"
    if run.device == "cuda" and not reference.offload:
        yield {"learner.reference.offload": True}, "a copy of the weights to the GPU and back in each step"
    if reference.type != "ema" and reference.dtype == "model" and run.model.dtype == "float32":
        yield {"learner.reference.dtype": "bfloat16"}, "a reference that is rounded"
    if run.device == "cuda" and rollout.kv_cache_gib is None:
        for fraction in FRACTIONS:
            if fraction < fraction_of_gpu(run):
                yield {"rollout.gpu_memory_fraction": fraction}, "a smaller KV cache: fewer sequences at once"
    elif (rollout.kv_cache_gib or CPU_CACHE_GIB) > SMALL_CACHE_GIB:
        yield {"rollout.kv_cache_gib": SMALL_CACHE_GIB}, "fewer sequences at once"


def _more_gpus(run: RunConfig, machine: Machine) -> Iterator[tuple[Settings, str]]:
    if run.device == "cpu":
        return
    if run.rollout.tensor_parallel == 1:
        yield {"rollout.tensor_parallel": 2}, "twice the GPUs for a replica"
    free = (machine.gpus or 0) - gpus_of_replicas(run)
    if free > run.learner.ranks:
        for stage in (2, 3):
            settings = {"learner.ranks": free, "learner.zero_stage": stage}
            yield settings, f"{free - run.learner.ranks} more GPUs"


def _tried(base: Plan, settings: Settings) -> Plan | None:
    run = changed(base.asked, settings)
    return None if run is None else plan(with_settings(base.training, run), base.machine)


def _saved(before: Plan, after: Plan) -> int:
    """Bytes saved in the place that lacks most, of those that do not fit before."""
    lacking = [place for place in before.places if place.fits is False]
    best = 0
    for place in lacking:
        then = after.place(place.name)
        if then is not None:
            best = max(best, place.peak_bytes - then.peak_bytes)
    if not lacking and before.faults:
        was, now = before.place(REPLICA), after.place(REPLICA)
        return max(0, was.peak_bytes - now.peak_bytes) if was and now else 0
    return best
