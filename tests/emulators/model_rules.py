"""What the model emulator was asked, and the rules that decide what it answers."""

import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

from tests.emulators.gate import Gate

REMINDERS = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_numbers = count(1)


@dataclass(frozen=True)
class Usage:
    """Token counts; `input` leaves out what was read from or written to the cache, `reasoning` is a part of `output`.

    `end` is how the Messages API tells them at the end of a streamed message: "whole", "output" (alone, as its documentation has
    it), or "unsplit" (the cache writes of both lengths as one number).
    """

    input: int = 12
    output: int = 7
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    end: str = "whole"

    def at_end(self) -> dict[str, Any]:
        whole = self.as_api()
        told = {"output": ["output_tokens"], "unsplit": [name for name in whole if name != "cache_creation"]}
        return {name: whole[name] for name in told.get(self.end, whole)}

    def as_api(self, output: int | None = None) -> dict[str, Any]:
        return {
            "input_tokens": self.input,
            "output_tokens": self.output if output is None else output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_write_5m + self.cache_write_1h,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write_5m,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
            "service_tier": "standard",
        }

    def as_responses(self) -> dict[str, Any]:
        """As the Responses API counts: cached tokens are a part of the input."""
        written = self.cache_write_5m + self.cache_write_1h
        whole = self.input + self.cache_read + written
        return {
            "input_tokens": whole,
            "input_tokens_details": {"cached_tokens": self.cache_read, "cache_write_tokens": written},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": whole + self.output,
        }


@dataclass
class ModelRequest:
    """One HTTP request, byte for byte. `at` and `ended` (its last byte answered) are `time.monotonic()`, `wall` is `time.time()`."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)
    ended: float = 0.0

    @cached_property
    def json(self) -> dict[str, Any]:
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError:
            return {}

    @property
    def is_message(self) -> bool:
        return self.method == "POST" and self.path.split("?")[0].endswith(("/v1/messages", "/v1/responses"))

    @property
    def input(self) -> list[dict[str, Any]]:
        """The items of a request to the Responses API; nothing in one to the Messages API."""
        return self.json.get("input", [])

    @property
    def model(self) -> str:
        return self.json.get("model", "")

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.json.get("messages", []) or [item for item in self.input if item.get("role")]

    @property
    def system(self) -> list[dict[str, Any]]:
        """The system blocks as they were sent."""
        system = self.json.get("system", [])
        if self.input:
            system = [
                block for item in self.input if item.get("role") == "developer" for block in item.get("content", [])
            ]
        return [{"type": "text", "text": system}] if isinstance(system, str) else system

    @property
    def system_text(self) -> str:
        return "\n".join(block.get("text", "") for block in self.system)

    @property
    def tools(self) -> list[str]:
        return [tool.get("name", "") for tool in self.json.get("tools", [])]

    @property
    def said(self) -> str:
        """What was said last: the last text of the last user message that is not a reminder added by the CLI."""
        texts = (REMINDERS.sub("", block.get("text", "")).strip() for block in reversed(self._last_blocks()))
        return next((text for text in texts if text), "")

    @property
    def tool_results(self) -> dict[str, Any]:
        """Contents of the tool results in the last message, by tool call id."""
        if self.input:
            last = itertools.takewhile(lambda item: item.get("role") != "assistant", reversed(self.input))
            return {item["call_id"]: item["output"] for item in last if item.get("type", "").endswith("_call_output")}
        results = [block for block in self._last_blocks() if block.get("type") == "tool_result"]
        return {block["tool_use_id"]: block.get("content") for block in results}

    def _last_blocks(self) -> list[dict[str, Any]]:
        from_user = [message for message in self.messages if message.get("role") == "user"]
        content = from_user[-1]["content"] if from_user else []
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


Match = str | Callable[[ModelRequest], bool]


@dataclass
class Rule:
    """When `match` fits, answer like this. A text fits when the last user message contains it.

    `answer` renders the answer; `fixture` is what aimock needs for it (None: the emulator answers by itself).
    """

    match: Match
    kind: str = "reply"
    fixture: dict[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    headers: dict[str, str] = field(default_factory=dict)
    latency: float = 0.0
    times: int | None = None
    gate: Gate | None = None
    details: dict[str, Any] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"rule-{next(_numbers)}")

    def fits(self, request: ModelRequest) -> bool:
        if self.times == 0:
            return False
        if callable(self.match):
            return self.match(request)
        return not request.tool_results and self.match in request.said

    def use(self) -> None:
        if self.times is not None:
            self.times -= 1
