"""The breaker of one endpoint at work: reads the clock, exports the state, and logs each change once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.clock import now_s
from services.config.endpoints import BreakerConfig
from verifier.network import breaker, metrics
from verifier.network.faults import EndpointAway, EndpointRefused, RequestFailed, Throttled

STATES = {"closed": 0, "half_open": 1, "open": 2}
PROBE_SLACK_S = 5.0  # so that a probe meets its own timeout before it counts as lost

log = logging.getLogger("ratchet.verifier")


class Circuit:
    def __init__(self, endpoint: str, settings: BreakerConfig, timeout_s: float) -> None:
        """timeout_s: how long one request may take."""
        self._endpoint = endpoint
        self._last_failure = ""
        self._breaker = breaker.Breaker()
        self._rules = breaker.BreakerRules(
            failures=settings.failures,
            open_s=settings.open_s,
            longest_open_s=settings.longest_open_s,
            probe_s=timeout_s + PROBE_SLACK_S,
        )

    @property
    def closed(self) -> bool:
        return self._breaker.state == "closed"

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold a permit for one request; the exception that leaves the block, if any, says what became of it.

        Never waits: raises EndpointAway when no request may be sent now.
        """
        state, permit = breaker.admit(self._breaker, self._rules, now_s())
        self._become(state)
        if permit is None:
            metrics.ENDPOINT_UNSENT.labels(self._endpoint, "breaker").inc()
            raise self.away()
        try:
            yield
        except RequestFailed as failure:
            self._last_failure = str(failure)
            self._become(breaker.failed(self._breaker, self._rules, permit, now_s()))
            raise
        except (Throttled, EndpointRefused):
            self._become(breaker.answered(self._breaker, permit))
            raise
        except BaseException:  # a cancelled caller too: a probe that has no caller must not keep others out
            self._become(breaker.withdrawn(self._breaker, permit, now_s()))
            raise
        self._become(breaker.answered(self._breaker, permit))

    def away(self) -> EndpointAway:
        """The fault of a call that may send no request now."""
        left_s = max(0.0, self._breaker.until_s - now_s())
        if self._breaker.state == "half_open":
            return EndpointAway(self._endpoint, f"one request is trying it, after: {self._last_failure}")
        cause = f"too many requests failed, so none is sent for {left_s:.1f} s more; the last one: {self._last_failure}"
        return EndpointAway(self._endpoint, cause, retry_after_s=left_s)

    def _become(self, state: breaker.Breaker) -> None:
        before = self._breaker
        self._breaker = state
        if before.state == state.state:
            return
        metrics.BREAKER_STATE.labels(self._endpoint).set(STATES[state.state])
        if before.state == "closed":
            log.warning(
                'endpoint "%s" is away: %s; one request will try it now and then', self._endpoint, self._last_failure
            )
        elif state.state == "closed":
            log.warning('endpoint "%s" is back', self._endpoint)
