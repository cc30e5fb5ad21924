"""[verifier.endpoints.NAME]: services that graders ask. Only the operator names them: no request can bring a URL along."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from services.config.base import Strict


class BudgetConfig(Strict):
    """What an endpoint may cost while the service lives; each replica of the service counts for itself."""

    max_calls: int | None = Field(default=None, ge=0)
    """Requests sent, repeated ones included."""
    max_tokens: int | None = Field(default=None, ge=0)
    """Prompt and completion together, as the endpoint reports them."""


class BreakerConfig(Strict):
    """When calls are no longer sent, because they fail."""

    failures: int = Field(default=5, ge=1)
    """Failed requests in a row that open it."""
    open_s: float = Field(default=10.0, gt=0.0)
    """Nothing is sent for so long; then one request tries."""
    longest_open_s: float = Field(default=300.0, gt=0.0)
    """open_s doubles with every try that fails, up to this."""


class EndpointConfig(Strict):
    url: str
    """For `judge` the part before /chat/completions, for example https://api.openai.com/v1; for `remote` the whole of it."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """Environment variable that holds the bearer token; it is missing at start: an error."""
    model: str | None = Field(default=None, min_length=1)
    """The judge's model."""
    body: dict[str, Any] = {}
    """Added to every request, for example {reasoning_effort = "low"}; wins over what the grader sends."""
    max_concurrent: int = Field(default=8, ge=1, le=1024)
    timeout_s: float = Field(default=30.0, gt=0.0)
    """One request, from its first byte to the last byte of its answer."""
    attempts: int = Field(default=3, ge=1)
    """Requests that a call may take; refusals (HTTP 4xx) are not repeated."""
    deadline_s: float = Field(default=300.0, gt=0.0)
    """One call with all its requests, the pauses between them and the wait for its turn."""
    max_answer_bytes: int = Field(default=4 * 2**20, ge=1)
    budget: BudgetConfig = BudgetConfig()
    breaker: BreakerConfig = BreakerConfig()

    @field_validator("url")
    @classmethod
    def plain_url(cls, value: str) -> str:
        # The value is not repeated in the error: a URL with a password in it is one of the faults.
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(character.isspace() for character in value):
            raise ValueError("is no URL; give http://HOST:PORT/PATH or https://HOST/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "holds a user or a password; put a token into an environment variable and name it: api_key_env"
            )
        if parts.fragment:
            raise ValueError("has a fragment (#...), which no server ever sees; remove it")
        return value


EndpointName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
EndpointsConfig = dict[EndpointName, EndpointConfig]
