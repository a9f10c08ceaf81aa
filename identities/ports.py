"""What the texts and grants of a bot are compiled to, for whoever runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.kernel import masking, secrets
from fleet.kernel.exceptions import Invalid

# What Claude Code calls its subagents by now. People, older CLIs and the models that learnt by them still say the earlier name.
_RENAMED_TOOLS = {"Task": "Agent"}


def tool_name(said: str) -> str:
    """Return what a tool is called by now: the name by which calls are judged and grants count."""
    return _RENAMED_TOOLS.get(said, said)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bot as a provider sees it, byte for byte the same for the same versions.

    `digest` is the SHA-256 (hex) over everything here; `versions` maps `soul` and `skill/<name>` to the SHA-256 of the live
    wording; `tools` are the tools it may use, sorted; `files` maps paths inside the workspace to their bytes.
    """

    slug: str
    system_prompt: str
    digest: str
    versions: dict[str, str]
    tools: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class CompiledWorkspace:
    """A compiled bot on disk: `path` is the directory it works in."""

    path: Path
    system_prompt: str
    digest: str
    versions: dict[str, str]
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """An MCP server as a provider takes it. Two are equal when nothing changed, their secrets included, which stay sealed."""

    name: str
    transport: str
    command: tuple[str, ...] = ()
    url: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    secret_names: tuple[str, ...] = ()
    sealed: bytes = field(default=b"", repr=False)
    place: tuple[tuple[str, str], ...] = ()

    def secrets(self) -> dict[str, str]:
        """Return its secrets by name. Raises Invalid for one that has no value yet, SecretUnreadable for another key's."""
        values = self._values()
        missing = sorted(set(self.secret_names) - values.keys())
        if missing:
            raise Invalid(
                f"The MCP server {self.name!r} has no value for {', '.join(missing)}.",
                next_step="An administrator enters it in the admin pages (MCP servers).",
            )
        for value in values.values():
            masking.register(value)
        return values

    def missing(self) -> tuple[str, ...]:
        """Return the secrets that it names and that have no value here, or none that this installation's keys open."""
        try:
            return tuple(sorted(set(self.secret_names) - self._values().keys()))
        except secrets.SecretUnreadable:
            return self.secret_names

    def _values(self) -> dict[str, str]:
        values: dict[str, str] = json.loads(secrets.unseal(self.sealed, **dict(self.place))) if self.sealed else {}
        return values
