"""[[environment.tools]]: what the policy may call in a conversation, one section for each tool."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from services.config.base import LocalPath, Strict

TOOL_NAME = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'"{value}" is not a URL; give http://HOST:PORT/PATH or https://HOST:PORT/PATH')
    if parts.username or parts.password:
        raise ValueError("the URL holds a name or a password; a tool is given no secrets")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]


class _Tool(Strict):
    """What every tool has."""

    seconds: float = Field(default=20.0, gt=0.0)
    """Seconds that one call may take; at most half of environment.turn_s. A tool that is later has failed, and the conversation
    is begun again; a program of the tool `python` that is too slow is told so instead."""


class CalculatorTool(_Tool):
    """Computes an expression of numbers."""

    type: Literal["calculator"] = "calculator"
    name: str = Field(default="calculator", pattern=TOOL_NAME)
    """Name by which the policy calls it."""


class PythonTool(_Tool):
    """Runs Python programs in the verifier's sandbox. What a conversation's earlier programs defined is known to later ones."""

    type: Literal["python"] = "python"
    name: str = Field(default="python", pattern=TOOL_NAME)
    """Name by which the policy calls it."""
    url: HttpUrl | None = None
    """URL of the verifier that runs the programs, such as http://verifier:8700. Default: verifier.url, or else the run's own
    verifier on this machine."""
    wall_s: float = Field(default=5.0, gt=0.0)
    """Seconds for one program and the earlier ones of its conversation, which run again before it; at most max_wall_s of
    [verifier.sandbox]."""
    memory_mb: int = Field(default=256, ge=64)
    """MiB for the program's processes together; at most max_memory_mb of [verifier.sandbox]."""


class SearchTool(_Tool):
    """Finds documents of a file by their words (BM25)."""

    type: Literal["search"] = "search"
    name: str = Field(default="search", pattern=TOOL_NAME)
    """Name by which the policy calls it."""
    path: LocalPath
    """JSON lines, one document each: an object with `text`, and `title` where there is one. Each replica holds it in memory."""
    results: int = Field(default=3, ge=1)
    """Documents that one call finds."""
    document_characters: int = Field(default=1000, ge=1)
    """Characters of each document that are shown."""


class HttpTool(_Tool):
    """Posts the arguments of a call to a URL, as JSON, and shows what is answered."""

    type: Literal["http"] = "http"
    name: str = Field(pattern=TOOL_NAME)
    """Name by which the policy calls it."""
    url: HttpUrl
    """Where calls are posted. Nothing of the service goes with them: no token, no cookie and no variable of its environment."""
    description: str = Field(min_length=1)
    """What the policy is told that the tool does."""
    parameters: dict[str, Any]
    """JSON schema of the arguments, an object. A call that does not meet it is not sent, and is told why."""
    max_bytes: int = Field(default=1 << 20, ge=1)
    """Bytes of an answer that are read; what comes after them is left out."""


class McpTool(_Tool):
    """The tools of a server that speaks the Model Context Protocol: started for each conversation, or found at a URL."""

    type: Literal["mcp"] = "mcp"
    command: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The server as a command and its arguments, which speaks on its standard input and output; not with `url`. Each
    conversation starts one. It gets PATH, HOME and their like from the replica's environment, and nothing else."""
    environment: dict[str, str] = {}
    """Variables that the command gets besides."""
    url: HttpUrl | None = None
    """The server's address (streamable HTTP); not with `command`."""
    only: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the server's tools that the policy may call; by default all."""

    @model_validator(mode="after")
    def one_server_is_named(self) -> Self:
        if bool(self.command) == (self.url is not None):
            raise ValueError('type = "mcp" needs either command = ["...", "..."] or url = "http://..."')
        if self.environment and not self.command:
            raise ValueError("environment has no effect with url; leave it out")
        return self


ToolConfig = Annotated[CalculatorTool | PythonTool | SearchTool | HttpTool | McpTool, Field(discriminator="type")]
