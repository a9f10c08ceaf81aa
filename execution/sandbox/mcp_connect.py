"""Stands for an MCP server inside a sandbox: hands on between its own streams and the server's socket. `mcp_connect.py <socket> [tools]`.

With `tools` a CLI gets the server's tools and nothing else of it: some read resources and prompts without asking.
"""

import json
import os
import socket
import sys
import threading

_NOT_TOOLS = ("resources/", "prompts/")


def main() -> None:
    """Hand on in both directions until one side ends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(sys.argv[1])
    threading.Thread(target=send, args=(connection, "tools" in sys.argv[2:]), daemon=True).start()
    while piece := connection.recv(65536):
        os.write(1, piece)
    os._exit(0)


def send(connection: socket.socket, only_tools: bool) -> None:
    """Hand on what the CLI says, line by line; its end is the server's."""
    with os.fdopen(0, "rb") as said:
        for line in said:
            connection.sendall(allowed(line) if only_tools else line)
    connection.shutdown(socket.SHUT_WR)


def allowed(line: bytes) -> bytes:
    """Return the message, or one that the server answers with an error, as it does with whatever it does not know."""
    try:
        message = json.loads(line)
        if not str(message["method"]).startswith(_NOT_TOOLS):
            return line
    except (ValueError, KeyError, TypeError):
        return line
    return json.dumps({**message, "method": "unavailable"}).encode() + b"\n"


if __name__ == "__main__":
    main()
