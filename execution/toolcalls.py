"""A tool call, as a provider puts it to whoever decides it, and the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

DELEGATES = "Agent"  # the tool by which a model lets another one work
_TARGETS = ("command", "file_path", "notebook_path", "path", "url", "skill", "query", "pattern", "description")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the provider is about to use."""

    call_id: str
    tool: str
    input: Mapping[str, Any]

    @property
    def target(self) -> str:
        """Return what the call is aimed at, as a short text: its command, path or address; empty when it has none."""
        found = (self.input.get(name) for name in _TARGETS)
        return next((str(value) for value in found if value), "")

    @property
    def digest(self) -> str:
        """Return what two calls of one tool with the same input have in common (SHA-256, hex)."""
        said = json.dumps([self.tool, self.input], sort_keys=True, default=str)
        return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """May it run? `reason` is told to the model when it may not."""

    allow: bool
    reason: str = ""


Judge = Callable[[ToolCall], Verdict]
"""Decides a tool call; called from any thread; must answer deny rather than raise."""
