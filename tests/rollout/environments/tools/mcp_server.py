"""A small MCP server, over standard streams or, with a port as an argument, over streamable HTTP."""

import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("small")
notes: list[str] = []


@server.tool()
def note(text: str) -> str:
    """Keeps a note, and says all of them."""
    notes.append(text)
    return "; ".join(notes)


@server.tool()
def variables() -> str:
    """Names the variables of the server's environment."""
    return " ".join(sorted(os.environ))


@server.tool()
def fail(reason: str) -> str:
    """Fails."""
    raise ToolError(reason)


@server.tool()
def leave() -> str:
    """Ends the server."""
    os._exit(3)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run("stdio")
