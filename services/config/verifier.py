"""[verifier]: the HTTP scoring service and the worker that feeds it from the streams."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Host, LocalPath, Strict
from services.config.chosen import Chosen, settled
from services.config.effect import OnlyWith
from services.config.endpoints import EndpointsConfig
from services.config.sandbox import START_S, Bubblewrap, SandboxConfig


class GraderLimits(Strict):
    """What the grader NAME may take."""

    deadline_s: float | None = Field(default=None, gt=0.0)
    """Seconds for one response. Default: verifier.item_deadline_s; for `code`, sandbox.max_total_s and 30 s more."""
    processes: int | None = Field(default=None, ge=1)
    """Grader processes that may work for this grader at once; by default all of them. Set it so that a slow grader leaves
    processes to the others."""
    response_characters: int | None = Field(default=None, ge=1)
    """Characters of a response; a longer one is incorrect without being graded. By default there is no limit."""


class RedisCache(Strict):
    """Verdicts are kept in the run's Redis, for all verifiers of the run. A service without a Redis keeps them in memory."""

    type: Literal["redis"] = "redis"
    max_entries: int = Field(default=200_000, ge=2)
    """Verdicts kept; the ones not used for longest go first."""


class MemoryCache(Strict):
    """Verdicts are kept in the memory of this service."""

    type: Literal["memory"] = "memory"
    max_entries: int = Field(default=100_000, ge=2)
    """Verdicts kept; the ones not used for longest go first."""


class NoCache(Strict):
    """Every response is graded, equal ones again."""

    type: Literal["none"] = "none"


class VerifierConfig(Strict):
    """The HTTP scoring service, the grader processes behind it, and the stream worker that feeds it."""

    host: Host = "127.0.0.1"
    """Address that the service listens on; "0.0.0.0" for all interfaces."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the service. 0 takes any free port, recorded in the run folder."""
    url: str | None = None
    """URL of a scoring service that runs elsewhere. Without one, the stream worker uses the service in its own process,
    without a socket."""
    ca_certificate: Annotated[LocalPath | None, OnlyWith(".url")] = None
    """PEM file that the certificate of `url` is checked with; by default the system's certificates."""
    tls_certificate: LocalPath | None = None
    """PEM file with the service's certificate; with it and tls_key the service speaks HTTPS. By default it speaks HTTP."""
    tls_key: LocalPath | None = None
    """PEM file with the private key of tls_certificate."""
    authentication: Literal["none", "bearer"] = "none"
    """Whom the service answers. bearer: only requests with one of the tokens in RATCHET_VERIFIER_TOKENS (NAME=TOKEN,
    separated by commas) are scored. The stream worker sends the one in RATCHET_VERIFIER_TOKEN, or the first of these."""
    processes: Chosen = "auto"
    """Grader processes that work at the same time. auto: a quarter of the cores and at least 2 where `ratchet up` starts the
    service, and 2 where it is started alone. Raise it when responses queue for verdicts and cores are idle."""
    slow_processes: int = Field(default=8, ge=0)
    """At most this many processes whose response takes far longer than usual keep running at low priority, while a
    replacement takes over. 0 lets slow responses hold up the others."""
    process_memory_mib: int = Field(default=4096, ge=256)
    """MiB of address space that a grader process may use."""
    recycle_items: int = Field(default=20_000, ge=1)
    """Responses after which a grader process is replaced, so that memory leaked by libraries does not add up."""
    item_deadline_s: float = Field(default=5.0, gt=0.0)
    """Seconds after which a grader that has not answered is killed. Whose fault it was decides the verdict
    (docs/verifier.md). `limits` changes it for one grader."""
    limits: dict[str, GraderLimits] = {}
    """What single graders may take, by name."""
    endpoints: EndpointsConfig = {}
    """Services that the graders `judge` and `remote` ask, by name."""
    sandbox: SandboxConfig = Bubblewrap()
    """What runs the code that the grader `code` is given."""
    cache: Annotated[RedisCache | MemoryCache | NoCache, Field(discriminator="type")] = RedisCache()
    """Where verdicts are kept, so that equal responses are graded once."""
    max_batch_items: int = Field(default=4096, ge=1)
    """Responses of one request; a larger request is answered 413."""
    max_body_bytes: int = Field(default=16 * 2**20, ge=1)
    """Bytes of one request; a larger one is answered 413. Raise it for references with large tests."""
    read_deadline_s: float = Field(default=60.0, gt=0.0)
    """Seconds that the headers of a request may take to come, and its body again; a slower one is answered 408. Raise it for
    large requests over slow links."""
    max_depth: int = Field(default=64, ge=4)
    """Objects and arrays within each other in a request; a deeper one is answered 422."""
    max_queued_items: int = Field(default=16384, ge=1)
    """Responses that may wait for a verdict. Requests that would exceed it are answered 503 with Retry-After."""
    attempts: int = Field(default=4, ge=1)
    """Times that the stream worker asks for a group's verdicts, with pauses of 0.5, 2, 8, ... s, before the group goes to
    `dead`."""
    concurrent_groups: int = Field(default=64, ge=1)
    """Groups that the stream worker scores in one request."""
    log_requests: Literal["trouble", "all"] = "trouble"
    """Requests that get a line in the log. trouble: those that were refused or have a response without a verdict."""
    log_responses: bool = False
    """Whether the beginning of each response that got no verdict is logged. Off, because logs outlive a run's data."""

    @property
    def grader_processes(self) -> int:
        """verifier.processes; 2 where nobody has chosen a number yet."""
        return settled(self.processes, otherwise=2)

    @model_validator(mode="after")
    def tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("tls_certificate", "tls_key") if self.tls_key is None else ("tls_key", "tls_certificate")
            raise ValueError(f"verifier.{given} needs verifier.{missing} too")
        return self

    def deadline_s(self, grader: str) -> float:
        """Seconds for one response. The sandbox has limits of its own, and knows whether the response broke them."""
        limits = self.limits.get(grader)
        if limits is not None and limits.deadline_s is not None:
            return limits.deadline_s
        return self.sandbox.max_total_s + START_S if grader == "code" else self.item_deadline_s
