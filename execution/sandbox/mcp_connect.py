"""Stands for an MCP server inside a sandbox: hands on between its own streams and the server's socket. `mcp_connect.py <socket>`."""

import os
import socket
import sys
import threading


def main() -> None:
    """Hand on in both directions until one side ends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(sys.argv[1])
    threading.Thread(target=send, args=(connection,), daemon=True).start()
    while piece := connection.recv(65536):
        os.write(1, piece)
    os._exit(0)


def send(connection: socket.socket) -> None:
    """Hand on what the CLI says; its end is the server's."""
    while piece := os.read(0, 65536):
        connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
