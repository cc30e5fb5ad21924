"""`ratchet why`: the sentence that says what stops a run, or what limits it. A function of facts; facts.py gathers them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.cause import Cause
from services.command.scrape import Scrape
from services.numbers import count
from services.run.waiting import Waiting
from services.streams.stream import StreamDepth

FULL_MEMORY = 0.95
"""Fraction of Redis's maxmemory from which it is said to be full."""
SLOW_SHARE = 0.5
"""One stream with this share of the outstanding groups is where they pile up."""
IDLE_SHARE = 0.3
"""A learner that waits for groups longer than this share of its time is limited by what feeds it."""
QUIET_S = 120.0
"""A run that took no step for this long is said to stand still."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run; what could not be asked is None or empty."""

    left: Mapping[str, Cause] = field(default_factory=dict)
    """Service -> the error that ended it, of those that were not started again since."""
    said: Sequence[tuple[str, str]] = ()
    """(service, warning), of the last minutes, oldest first."""
    redis_fault: str | None = None
    """Why its server did not answer; None: it did, or the run has none now."""
    is_running: bool = False
    redis_memory: tuple[int, int] | None = None
    """Bytes used, and maxmemory (0: no limit)."""
    depths: Mapping[str, StreamDepth] = field(default_factory=dict)
    dead_causes: Sequence[str] = ()
    expected_replicas: int = 0
    ready: Mapping[str, bool] = field(default_factory=dict)
    """Replica with a lease -> whether it takes prompts."""
    announced: Mapping[str, Scrape | None] = field(default_factory=dict)
    """Service that announced an address -> what it says; None: it does not answer."""
    verifier_url: str | None = None
    waiting: Waiting | None = None
    steps: Sequence[Mapping[str, Any]] = ()
    """The newest rows."""
    steps_wanted: int = 0
    step_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """What stops or limits the run."""

    what: str
    """One sentence, on one line."""
    action: str
    """Where to look, or what to do."""
    more: str = ""
    """What follows the sentence in the message that it was taken from."""


def reasons(facts: Facts) -> list[Reason]:
    """What stops or limits the run, the worst first; empty when nothing is known to."""
    return [_on_one_line(reason) for rule in RULES for reason in rule(facts)]


def _on_one_line(reason: Reason) -> Reason:
    """The reason with what other lines its message has apart; a colon that led to them is gone."""
    what, _, more = reason.what.partition("\n")
    return replace(reason, what=what.removesuffix(":"), more=more) if more else reason


def _ended(facts: Facts) -> Iterator[Reason]:
    for service, cause in facts.left.items():
        ending = "is not started again" if cause.retry == "never" else "ended"
        yield Reason(f"{service} {ending}: {cause.message}", f"Its log is logs/{service}.log.")


def _redis(facts: Facts) -> Iterator[Reason]:
    if facts.redis_fault is not None:
        yield Reason(f"the Redis server does not answer: {facts.redis_fault}", "Its log is redis/redis.log.")
    refusal = next((text for _, text in reversed(facts.said) if ": OOM " in text or "maxmemory" in text), None)
    used, most = facts.redis_memory or (0, 0)
    if refusal is not None or (most and used >= FULL_MEMORY * most):
        words = f"{count(used / 2**20)} of {count(most / 2**20)} MiB are used" if most else f"{refusal}"
        yield Reason(
            f"the memory of Redis is full: {words}",
            "Raise maxmemory, or lower learner.groups_per_step or learner.max_lag: less is then in flight.",
        )


def _scoring(facts: Facts) -> Iterator[Reason]:
    verifier = facts.announced.get("verifier")
    waits = verifier is not None and verifier.value("ratchet_waiting", room="verifier", awaiting="scoring")
    if waits:
        last = next((text for name, text in reversed(facts.said) if name == "verifier" and "is away" in text), "")
        where = f"verifier.url = {facts.verifier_url}" if facts.verifier_url else "the run's own verifier"
        yield Reason(
            f"no group is scored: the scoring service does not answer at {where}" + (f" ({last})" if last else ""),
            "Correct verifier.url, or start the service; groups wait and none is lost.",
        )
    elif "verifier" in facts.announced and verifier is None:
        yield Reason("the verifier does not answer on its address", "Its log is logs/verifier.log.")


def _killed(facts: Facts) -> Iterator[Reason]:
    """Services that died and have not come back."""
    for service, text in _restarts(facts).items():
        if facts.announced.get(service) is None:
            yield Reason(text, _after(text))


def _came_back(facts: Facts) -> Iterator[Reason]:
    """Services that died in the last minutes and work again."""
    for service, text in _restarts(facts).items():
        if facts.announced.get(service) is not None:
            yield Reason(f"{text}; it answers again", _after(text))


def _after(text: str) -> str:
    """What to do about a service that died so."""
    kernel = (
        " A SIGKILL that nobody gave is mostly the kernel's, out of memory: see `dmesg`." if "SIGKILL" in text else ""
    )
    return f"Its log says more.{kernel}"


def _restarts(facts: Facts) -> dict[str, str]:
    """Service -> what `ratchet up` said when it started it again, the last time."""
    return {text.split(" ", 1)[0]: text for name, text in facts.said if name == "up" and "starting it again" in text}


def _replicas(facts: Facts) -> Iterator[Reason]:
    if not facts.is_running:
        return
    silent = [name for name, scrape in facts.announced.items() if name.startswith("rollout") and scrape is None]
    for name in [one for one in silent if one not in _restarts(facts)]:
        yield Reason(
            f"{name} does not answer on its address: it died, hangs, or the network to it is cut",
            f"Its log is logs/{name}.log; its groups go to other replicas after deadlines.reclaim_idle_s.",
        )
    missing = facts.expected_replicas - len(facts.ready)
    if missing > 0 and not silent:
        yield Reason(
            f"{missing} of {facts.expected_replicas} replicas have no lease: they are starting, or cannot reach Redis",
            "The logs logs/rollout-*.log say which.",
        )
    behind = [name for name, ready in facts.ready.items() if not ready]
    if behind:
        yield Reason(
            f"{', '.join(behind)} {'holds' if len(behind) == 1 else 'hold'} no proven weights and take no prompts",
            "See docs/operating.md, Weights did not reach a replica.",
        )


def _weights(facts: Facts) -> Iterator[Reason]:
    last = next((text for _, text in reversed(facts.said) if "weights did not reach every replica" in text), None)
    if facts.waiting is None or facts.waiting.confirmed:
        return
    if last is not None or _stands_still(facts):
        yield Reason(
            last or "the replicas have not confirmed the last weights, so no prompts are issued",
            "See docs/operating.md, Weights did not reach a replica.",
        )


def _not_finite(facts: Facts) -> Iterator[Reason]:
    in_a_row = 0
    for row in reversed(facts.steps):
        if not row.get("skipped"):
            break
        in_a_row += 1
    if in_a_row:
        why = facts.steps[-1]["skipped"]
        yield Reason(
            f"the last {count(in_a_row)} steps changed nothing: {why}"
            if in_a_row > 1
            else f"the last step changed nothing: {why}",
            "Lower the learning rate, or look at the rewards; the run stops after learner.max_skipped_steps in a row.",
        )


def _dead(facts: Facts) -> Iterator[Reason]:
    if facts.dead_causes:
        cause, same = Counter(facts.dead_causes).most_common(1)[0]
        of = f"{count(len(facts.dead_causes))} groups died" if len(facts.dead_causes) > 1 else "1 group died"
        most = f", {count(same)} of them for this" if same < len(facts.dead_causes) else ""
        yield Reason(f"{of}{most}: {cause}", "The learner's log names the rows of the dataset.")


def _nothing_to_train_on(facts: Facts) -> Iterator[Reason]:
    waiting = facts.waiting
    if waiting is not None and waiting.unusable and not waiting.usable:
        yield Reason(
            f"no group can be trained on: {waiting.unusable}",
            "Rewards that are all equal teach nothing: look at answers with `ratchet verify`, or choose other problems.",
        )


def _queues(facts: Facts) -> Iterator[Reason]:
    if not facts.is_running or not _learner_waits(facts):
        return
    groups = {name: depth.waiting + depth.pending for name, depth in facts.depths.items()}
    out = sum(groups.get(name, 0) for name in ("prompts", "trajectories"))
    if not out:
        return
    if groups.get("trajectories", 0) >= SLOW_SHARE * out:
        yield Reason(
            f"grading limits the run: {count(groups['trajectories'])} of {count(out)} groups wait to be scored",
            "More verifiers, or more verifier.processes; a grader near verifier.item_deadline_s is slow itself.",
        )
    else:
        yield Reason(
            f"sampling limits the run: {count(groups.get('prompts', 0))} of {count(out)} groups wait to be sampled",
            "More rollout replicas, or a larger rollout.max_concurrent_sequences.",
        )


def _quiet(facts: Facts) -> Iterator[Reason]:
    if facts.is_running and facts.step_age_s is not None and facts.step_age_s > QUIET_S:
        said = f": {facts.waiting.said()}" if facts.waiting is not None else ""
        yield Reason(
            f"the last step was {count(facts.step_age_s)} s ago{said}", "The logs say what each service waits for."
        )


def _learner_waits(facts: Facts) -> bool:
    """Whether the learner waits for groups much of its time: since the last steps, or now for longer than usual."""
    waited_s = sum(row.get("waited_s") or 0.0 for row in facts.steps)
    busy_s = sum(row.get("seconds") or 0.0 for row in facts.steps)
    return _stands_still(facts) or waited_s > IDLE_SHARE * (waited_s + busy_s)


def _stands_still(facts: Facts) -> bool:
    return facts.step_age_s is None or facts.step_age_s > QUIET_S


RULES: tuple[Callable[[Facts], Iterator[Reason]], ...] = (
    _ended,
    _redis,
    _scoring,
    _killed,
    _replicas,
    _weights,
    _not_finite,
    _nothing_to_train_on,
    _dead,
    _queues,
    _quiet,
    _came_back,
)
"""The worst first: what ended, what the others depend on, then what lets nothing through, then what is slow."""
