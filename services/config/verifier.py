"""[verifier]: the HTTP scoring service and the worker that feeds it from the streams."""

from pydantic import Field

from services.config.base import Strict


class VerifierConfig(Strict):
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """0: any free port, recorded in the run directory."""
    url: str | None = None
    """A scoring service that runs elsewhere. Without it the stream worker calls the service in its own process."""
    processes: int = Field(default=1, ge=1)
    """Killable grader processes."""
    item_deadline_s: float = Field(default=5.0, gt=0.0)
    """A grader that has not answered by then is killed; the verdict is `timeout`."""
    max_batch_items: int = Field(default=4096, ge=1)
    max_body_bytes: int = Field(default=16 * 2**20, ge=1)
    max_queued_items: int = Field(default=16384, ge=1)
    """Above it requests are answered 503 with Retry-After."""
    attempts: int = Field(default=3, ge=1)
    """How often the stream worker asks for a group before it goes to `dead`."""
    concurrent_groups: int = Field(default=64, ge=1)
    """Groups that the stream worker scores in one request."""
