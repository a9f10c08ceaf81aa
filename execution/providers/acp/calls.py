"""Tool calls of an agent under the names that grants use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acp.schema import ToolCallUpdate

from execution.toolcalls import ToolCall

_NAME = re.compile(r"[A-Za-z][\w-]{0,100}")
_OF_KIND = {
    **{"execute": "Bash", "read": "Read", "edit": "Edit", "delete": "Edit", "move": "Edit"},
    **{"search": "Grep", "fetch": "WebFetch"},
}
_LONGEST_SUMMARY = 2_000


@dataclass(slots=True)
class Known:
    """What an agent has told of one call so far, in pieces."""

    id: str
    name: str = ""
    kind: str = ""
    title: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    output: str = ""
    asked: bool = False
    begun: bool = False
    refusal: str = ""

    def learn(self, told: ToolCallUpdate, raw: Mapping[str, Any]) -> None:
        """Take what an update or a request says. `name` is newer than the SDK's types, so it is read as it came."""
        name = raw.get("name")
        self.name = name if isinstance(name, str) and _NAME.fullmatch(name) else self.name
        self.kind, self.title = told.kind or self.kind, told.title or self.title
        if isinstance(told.raw_input, dict) and told.raw_input:
            self.input = told.raw_input
        self.paths = _paths(told) or self.paths
        self.output = _output(told) or self.output

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Return what it is to the judge: one call, or one for every file of several."""
        tool = self.name or _OF_KIND.get(self.kind, "")
        if not tool:
            return ()
        first = ToolCall(self.id, tool, self.input)
        if first.target and len(self.paths) < 2:
            return (first,)
        if self.kind == "execute":
            return (ToolCall(self.id, tool, {**self.input, "command": first.target or self.title}),)
        others = tuple(ToolCall(self.id, tool, {**self.input, "command": "", "file_path": path}) for path in self.paths)
        return others or (first,)

    @property
    def summary(self) -> str:
        """Return what came of it, bounded."""
        return (self.refusal or self.output)[:_LONGEST_SUMMARY]


def _paths(told: ToolCallUpdate) -> tuple[str, ...]:
    """Return the files an update names: those it changes, else those it points at."""
    changed = [block.path for block in told.content or () if block.type == "diff"]
    return tuple(dict.fromkeys(changed or [place.path for place in told.locations or ()]))


def _output(told: ToolCallUpdate) -> str:
    if isinstance(told.raw_output, str):
        return told.raw_output
    texts = [block.content for block in told.content or () if block.type == "content"]
    return "\n".join(text.text for text in texts if text.type == "text")
