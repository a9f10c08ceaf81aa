"""A small real MCP server over stdio, with the official package: it says whether it has its secret, and never the secret."""

import hashlib
import os

from mcp.server import MCPServer

server = MCPServer("crm")


@server.tool()
def find_customer(name: str) -> str:
    """Find a customer by name."""
    token = os.environ.get("CRM_TOKEN", "")
    shown = hashlib.sha256(token.encode()).hexdigest()[:12]
    place = f"at {os.environ.get('CRM_REGION')} in {os.environ.get('FLEET_WORKSPACE')}"
    return f"{name} is customer 4711; token {shown}; {place}"


@server.resource("crm://customers")
def customers() -> str:
    """All customers."""
    return "Larkfield and Sons"


if __name__ == "__main__":
    server.run()
