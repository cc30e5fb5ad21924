"""[verifier.endpoints.NAME]: services that graders ask. Only the operator names them; no request can bring a URL of its own."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from services.config.base import Strict


class BudgetConfig(Strict):
    """What an endpoint may cost while the service lives; each replica of the service counts for itself."""

    max_calls: int | None = Field(default=None, ge=0)
    """Requests sent, retries included. Without one there is no limit on requests."""
    max_tokens: int | None = Field(default=None, ge=0)
    """Tokens of prompts and completions together, as the endpoint reports them. Requests in flight may exceed it a little.
    Without one there is no limit on tokens."""


class BreakerConfig(Strict):
    """When requests are no longer sent because they fail."""

    failures: int = Field(default=5, ge=1)
    """Failed requests in a row after which none are sent for a while."""
    open_s: float = Field(default=10.0, gt=0.0)
    """Seconds in which nothing is sent; then a single request tries."""
    longest_open_s: float = Field(default=300.0, gt=0.0)
    """Most seconds in which nothing is sent: open_s doubles with every try that fails, up to this."""


class EndpointConfig(Strict):
    """One service that graders ask over HTTP; docs/judge.md says how judges are used."""

    url: str
    """For the grader `judge` the part before /chat/completions, such as https://api.openai.com/v1; for `remote` the whole URL."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """Name of the environment variable that holds the bearer token; it is an error if that is not set at start. Without a
    name, requests carry no token."""
    model: str | None = Field(default=None, min_length=1)
    """Name of the model that a judge asks; the grader `judge` needs one, `remote` does not use it."""
    body: dict[str, Any] = {}
    """Fields added to every request, such as {reasoning_effort = "low"}; they override what the grader sends."""
    max_concurrent: int = Field(default=8, ge=1, le=1024)
    """Requests in flight at the same time. Raise it when calls wait for their turn and the endpoint has capacity."""
    timeout_s: float = Field(default=30.0, gt=0.0)
    """Seconds for one request, from its first byte to the last byte of its answer."""
    attempts: int = Field(default=3, ge=1)
    """Requests that one call may take, retries included; refusals (HTTP 4xx other than 429) are not retried."""
    deadline_s: float = Field(default=300.0, gt=0.0)
    """Seconds for one call: all its requests, the pauses between them and the wait for its turn."""
    max_answer_bytes: int = Field(default=4 * 2**20, ge=1)
    """Largest answer that is read, in bytes; a larger one is an error."""
    budget: BudgetConfig = BudgetConfig()
    """What the endpoint may cost while the service runs."""
    breaker: BreakerConfig = BreakerConfig()
    """When requests are no longer sent because they fail."""

    @field_validator("url")
    @classmethod
    def plain_url(cls, value: str) -> str:
        # The error does not repeat the value: a URL with a password in it is one of the faults.
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(character.isspace() for character in value):
            raise ValueError("is not a URL; give http://HOST:PORT/PATH or https://HOST/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "holds a user or a password; put a token into an environment variable and name it: api_key_env"
            )
        if parts.fragment:
            raise ValueError("has a fragment (#...), which a server never sees; remove it")
        return value


ENDPOINT_PATTERN = r"^[A-Za-z0-9_-]{1,40}$"
EndpointName = Annotated[str, StringConstraints(pattern=ENDPOINT_PATTERN)]
"""Up to 40 letters, digits, dashes and underscores."""
EndpointsConfig = dict[EndpointName, EndpointConfig]
