"""What the gateway process needs from a platform's adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateways.models import GatewayAccount, GatewayProcess
from gateways.threads import DatabaseThreads


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an adapter may use: the threads in which it talks to the database, and the process it runs in."""

    database: DatabaseThreads
    process: GatewayProcess


class Adapter(Protocol):
    """Carries messages of one platform, for all its accounts, inside the one gateway process. It never decides anything."""

    async def serve(self, accounts: list[GatewayAccount]) -> None:
        """Serve exactly these accounts from now on. Called again every few seconds; must return soon."""
        ...

    async def run(self) -> None:
        """Do the adapter's own work until cancelled; an error here ends the process."""
        ...

    async def close(self) -> None:
        """Finish what is under way within seconds, give leases back and close connections."""
        ...
