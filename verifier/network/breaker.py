"""When requests to an endpoint are no longer sent, and which one may try it. Pure: facts and the time are arguments.

    closed --failures in a row--> open --its time is up--> half-open --the probe failed--> open, for longer
       ^                                                       |
       +--------------------- the probe was answered ----------+

Every change of state starts a new era, and a permit counts only in the era that gave it: what was sent before the
breaker opened cannot close it, and at most one permit of a half-open era exists. A probe that reports nothing counts as
lost at `until_s`, so that nothing keeps the breaker open for ever.
"""

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    failures: int
    """Failed requests in a row that open a closed breaker."""
    open_s: float
    longest_open_s: float
    probe_s: float
    """Time after which a probe that reported nothing counts as lost."""

    def open_for_s(self, openings: int) -> float:
        """How long to stay open: doubled with each of the `openings` since the breaker was last closed, this one included."""
        return max(self.open_s, min(self.longest_open_s, self.open_s * 2.0 ** min(openings - 1, 60)))


@dataclass(frozen=True, slots=True)
class Breaker:
    state: State = "closed"
    era: int = 0
    failures: int = 0
    """Failed requests in a row, in this closed era."""
    openings: int = 0
    """How often it opened since it was last closed."""
    until_s: float = 0.0
    """When a probe may be sent (open), or counts as lost (half-open). Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send one request. Its holder reports with one of `answered`, `failed`, `withdrawn`."""

    era: int


def admit(breaker: Breaker, rules: BreakerRules, now_s: float) -> tuple[Breaker, Permit | None]:
    """The next state, and a permit if a request may be sent now."""
    if breaker.state == "closed":
        return breaker, Permit(breaker.era)
    if now_s < breaker.until_s:
        return breaker, None
    probing = replace(breaker, state="half_open", era=breaker.era + 1, until_s=now_s + rules.probe_s)
    return probing, Permit(probing.era)


def answered(breaker: Breaker, permit: Permit) -> Breaker:
    """The next state after an answer: it closes a half-open breaker."""
    if permit.era != breaker.era:
        return breaker
    if breaker.state == "closed":
        return replace(breaker, failures=0)
    return Breaker(era=breaker.era + 1)


def failed(breaker: Breaker, rules: BreakerRules, permit: Permit, now_s: float) -> Breaker:
    """The next state after a failure of the endpoint: one too many opens the breaker."""
    if permit.era != breaker.era:
        return breaker
    failures = breaker.failures + 1
    if breaker.state == "closed" and failures < rules.failures:
        return replace(breaker, failures=failures)
    openings = breaker.openings + 1
    return Breaker("open", breaker.era + 1, 0, openings, now_s + rules.open_for_s(openings))


def withdrawn(breaker: Breaker, permit: Permit, now_s: float) -> Breaker:
    """The next state after a request whose end says nothing about the endpoint, because its caller went away."""
    if permit.era != breaker.era or breaker.state == "closed":
        return breaker
    return replace(breaker, state="open", era=breaker.era + 1, until_s=now_s)
