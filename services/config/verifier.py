"""[verifier]: the HTTP scoring service and the worker that feeds it from the streams."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import LocalPath, Strict
from services.config.endpoints import EndpointsConfig
from services.config.sandbox import START_S, Bubblewrap, SandboxConfig


class GraderLimits(Strict):
    """[verifier.limits.NAME]: what one grader may take."""

    deadline_s: float | None = Field(default=None, gt=0.0)
    """For one response; without it verifier.item_deadline_s, and for `code` a little more than sandbox.max_total_s."""
    processes: int | None = Field(default=None, ge=1)
    """At most so many grader processes work for it at once."""
    response_characters: int | None = Field(default=None, ge=1)
    """A longer response is incorrect."""


class RedisCache(Strict):
    """Verdicts in the run's Redis, for all verifiers of the run; the service alone, without a Redis, keeps its own."""

    type: Literal["redis"] = "redis"
    max_entries: int = Field(default=200_000, ge=2)


class MemoryCache(Strict):
    """Verdicts in this service."""

    type: Literal["memory"] = "memory"
    max_entries: int = Field(default=100_000, ge=2)


class NoCache(Strict):
    type: Literal["none"] = "none"


class VerifierConfig(Strict):
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """0: any free port, recorded in the run directory."""
    url: str | None = None
    """A scoring service that runs elsewhere. Without it the stream worker calls the service in its own process."""
    ca_certificate: LocalPath | None = None
    """PEM file that the certificate of `url` is checked with; without it the system's."""
    tls_certificate: LocalPath | None = None
    """PEM file: the service speaks HTTPS. Together with tls_key."""
    tls_key: LocalPath | None = None
    authentication: Literal["none", "bearer"] = "none"
    """bearer: only requests with one of the tokens in RATCHET_VERIFIER_TOKENS (NAME=TOKEN, separated by commas) are
    scored. The stream worker sends the one in RATCHET_VERIFIER_TOKEN, or the first of these."""
    processes: int = Field(default=2, ge=1)
    """Killable grader processes that work at the same time."""
    slow_processes: int = Field(default=8, ge=0)
    """A process whose response takes far longer than usual goes on behind the others' backs, so many at most, and another
    takes its place."""
    process_memory_mib: int = Field(default=4096, ge=256)
    """Address space of a grader process."""
    recycle_items: int = Field(default=20_000, ge=1)
    """A grader process that has judged so many responses is replaced, so that nothing that a library leaks adds up."""
    item_deadline_s: float = Field(default=5.0, gt=0.0)
    """A grader that has not answered by then is killed. Whose fault it was decides the verdict: see docs/verifier.md."""
    limits: dict[str, GraderLimits] = {}
    """By grader."""
    endpoints: EndpointsConfig = {}
    """Services that the graders `judge` and `remote` ask, by name."""
    sandbox: SandboxConfig = Bubblewrap()
    """What runs the code that the grader `code` is given."""
    cache: Annotated[RedisCache | MemoryCache | NoCache, Field(discriminator="type")] = RedisCache()
    max_batch_items: int = Field(default=4096, ge=1)
    max_body_bytes: int = Field(default=16 * 2**20, ge=1)
    max_depth: int = Field(default=64, ge=4)
    """Of objects and arrays within each other in a request."""
    max_queued_items: int = Field(default=16384, ge=1)
    """Above it requests are answered 503 with Retry-After."""
    attempts: int = Field(default=4, ge=1)
    """How often the stream worker asks for a group, with pauses of 0.5, 2, 8, ... s, before it goes to `dead`."""
    concurrent_groups: int = Field(default=64, ge=1)
    """Groups that the stream worker scores in one request."""
    log_requests: Literal["trouble", "all"] = "trouble"
    """trouble: requests that were refused, or in which something got no verdict."""
    log_responses: bool = False
    """Let the beginning of each response that got no verdict into the log; off, because logs outlive a run's data."""

    @model_validator(mode="after")
    def tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("tls_certificate", "tls_key") if self.tls_key is None else ("tls_key", "tls_certificate")
            raise ValueError(f"verifier.{given} needs verifier.{missing} too")
        return self

    def deadline_s(self, grader: str) -> float:
        """For one response. The sandbox has limits of its own, and knows that the response broke them."""
        limits = self.limits.get(grader)
        if limits is not None and limits.deadline_s is not None:
            return limits.deadline_s
        return self.sandbox.max_total_s + START_S if grader == "code" else self.item_deadline_s
