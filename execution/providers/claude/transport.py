"""The SDK's Transport over a shim's pipes."""

from __future__ import annotations

from claude_agent_sdk import CLIConnectionError, Transport

from execution.shim.pipes import Pipes


class ShimTransport(Pipes, Transport):
    """What the SDK expects of a transport; only the name of its error is not the pipes' own."""

    async def write(self, data: str) -> None:
        """Write one line to the CLI. Raises CLIConnectionError when it does not read any more."""
        try:
            await super().write(data)
        except BrokenPipeError as error:
            raise CLIConnectionError(str(error)) from error
