"""A model API on loopback that behaves as the last thing said to it asks: enough of the Messages and the Responses API for a check.

It ships with the product, so that an operator can check a new CLI without the tests. What it is asked for: `check:tool`,
`check:once`, `check:delegate`, `check:wait`, `check:brief`, `check:fail=<kind>`; anything else is repeated.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from execution.toolcalls import DELEGATES

TOOL, ONCE, WAIT, FAIL = "check:tool", "check:once", "check:wait", "check:fail="
BRIEF = "check:brief"  # the end of the message tells its output alone, as the Messages API documents it
DELEGATE = "check:delegate"  # to a subagent, which is to use a tool
COMMAND = "echo checked"
RUNS = "runs"  # the file in which a command that may run once leaves a line each time
_COMMANDS = {TOOL: COMMAND, ONCE: f"echo ran >>{RUNS}"}
_WINDOW_SECONDS = 3600
_CUT = "check:cut"  # in an event: after how many characters it breaks off
INPUT, OUTPUT, CACHED = 100, 20, 30  # tokens of every answer; the cached ones are not among the input
_LONGEST_WAIT = 120.0
_REMINDERS = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_TOO_LONG = "prompt is too long: 250000 tokens > 200000 maximum"
# Status and error by kind: as Anthropic says it, and as OpenAI does.
_ERRORS: dict[str, tuple[tuple[int, dict[str, str]], tuple[int, dict[str, str]]]] = {
    "auth": (
        (401, {"type": "authentication_error", "message": "invalid x-api-key"}),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided."}),
    ),
    "rate": (
        (429, {"type": "rate_limit_error", "message": "This request would exceed your rate limit."}),
        (429, {"type": "requests", "code": "rate_limit_exceeded", "message": "Rate limit reached."}),
    ),
    "overload": (
        (529, {"type": "overloaded_error", "message": "Overloaded"}),
        (503, {"type": "server_error", "message": "The engine is currently overloaded."}),
    ),
    "fault": (
        (500, {"type": "api_error", "message": "Internal server error"}),
        (500, {"type": "server_error", "message": "The server had an error."}),
    ),
    "window": (
        (429, {"type": "rate_limit_error", "message": "This request would exceed your limit."}),
        (
            429,
            {"type": "usage_limit_reached", "code": "usage_limit_reached", "message": "You have reached your limit."},
        ),
    ),
    "context": (
        (400, {"type": "invalid_request_error", "message": _TOO_LONG}),
        (400, {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "Too long."}),
    ),
    "billing": (
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your quota."}),
    ),
}


class CheckModel:
    """Serves on a free port of 127.0.0.1 while it is entered. `heard` are the requests for an answer so far, as JSON.

    `keys` are the credentials that came with them; `window_ends` is the moment at which a used-up limit starts anew (Unix time).
    """

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.window_ends = int(time.time()) + _WINDOW_SECONDS
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.model = self
        self.numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """Return its address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="check:model", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Serve nobody any more."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: CheckModel


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        if not path.endswith(("/v1/messages", "/v1/responses")):
            self._json(404, {"error": {"type": "not_found_error", "message": "Not here."}})
            return
        asked = json.loads(body)
        self.server.model.heard.append(asked)
        self.server.model.keys |= {self.headers.get("x-api-key") or self.headers.get("Authorization") or ""}
        self._answer(asked, openai=path.endswith("/v1/responses"))

    def do_GET(self) -> None:
        self._json(404, {"error": {"type": "not_found_error", "message": "Not here."}})

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the operator reads a table."""

    def _answer(self, asked: dict[str, Any], *, openai: bool) -> None:
        said, results = _last_said(asked), _has_results(asked)
        kind = said.split(FAIL, 1)[1].split()[0] if FAIL in said and not results else ""
        if kind in _ERRORS:
            status, error = _ERRORS[kind][openai]
            self._json(status, {"type": "error", "error": error}, self._limits() if kind == "window" else {})
            return
        number = next(self.server.model.numbers)
        events = _responses if openai else _messages
        self._stream(_broken(events(asked, said, results=results, number=number), kind))

    def _limits(self) -> dict[str, str]:
        """Return the headers by which a vendor tells a used-up limit, in the words of both."""
        moment = str(self.server.model.window_ends)
        return {
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-reset": moment,
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "x-codex-primary-used-percent": "100",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": moment,
        }

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for event in events:
                if event["type"] == WAIT:
                    self.server.model.closing.wait(_LONGEST_WAIT)
                    break
                data = json.dumps(event)[: event.get(_CUT)]
                self.wfile.write(f"event: {event['type']}\ndata: {data}\n\n".encode())
                self.wfile.flush()
        except OSError:
            pass  # the CLI was interrupted, as it should be
        self.close_connection = True

    def _json(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


# --- What was asked ------------------------------------------------------------------------------------------------------


def _blocks(asked: dict[str, Any]) -> list[dict[str, Any]]:
    messages = asked.get("messages") or asked.get("input") or []
    from_user = [message for message in messages if message.get("role") == "user"]
    content = from_user[-1]["content"] if from_user else []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _last_said(asked: dict[str, Any]) -> str:
    """Return the last text of a person; CLIs put reminders of their own around it."""
    texts = (_REMINDERS.sub("", str(block.get("text", ""))).strip() for block in reversed(_blocks(asked)))
    return next((text for text in texts if text), "")


def _has_results(asked: dict[str, Any]) -> bool:
    """Return whether a tool's result came back after the model's last answer."""
    if "input" in asked:
        last = itertools.takewhile(lambda item: item.get("role") != "user", reversed(asked["input"]))
        return any(str(item.get("type", "")).endswith("_call_output") for item in last)
    return any(block.get("type") == "tool_result" for block in _blocks(asked))


# --- What is answered ----------------------------------------------------------------------------------------------------


def _broken(events: Iterator[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the events of an answer, or what a broken one of them brings: a connection that is cut, or JSON that is."""
    for number, event in enumerate(events):
        if kind and number == 1:
            if kind == "json":
                yield event | {_CUT: 20}
            return
        yield event


def _call_for(said: str) -> tuple[str, dict[str, str]] | None:
    """Return the tool that the model is to ask for, with its input, as Claude calls them."""
    if DELEGATE in said:
        return DELEGATES, {"description": "check", "prompt": TOOL, "subagent_type": "general-purpose"}
    command = _command_for(said)
    return ("Bash", {"command": command}) if command else None


def _command_for(said: str) -> str:
    """Return the command the model is to ask for; empty for none."""
    return next((command for word, command in _COMMANDS.items() if word in said), "")


def _text_for(said: str, results: bool) -> str:
    return "It ran." if results else f"You said: {said}"


def _messages(asked: dict[str, Any], said: str, *, results: bool, number: int) -> Iterator[dict[str, Any]]:
    used = {"input_tokens": INPUT, "output_tokens": OUTPUT, "cache_read_input_tokens": CACHED}
    used["cache_creation_input_tokens"] = 0
    message: dict[str, Any] = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": asked.get("model"),
    }
    yield {"type": "message_start", "message": {**message, "stop_reason": None, "usage": {**used, "output_tokens": 1}}}
    call = None if results else _call_for(said)
    if call:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": call[0], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
    else:
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": _text_for(said, results)}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    if WAIT in said:
        yield {"type": WAIT}
    yield {"type": "content_block_stop", "index": 0}
    stop = "tool_use" if call else "end_turn"
    told = {"output_tokens": OUTPUT} if BRIEF in said else used
    yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": told}
    yield {"type": "message_stop"}


def _responses(asked: dict[str, Any], said: str, *, results: bool, number: int) -> Iterator[dict[str, Any]]:
    response = {"id": f"resp_{number}", "object": "response", "model": asked.get("model"), "status": "in_progress"}
    yield {"type": "response.created", "response": {**response, "output": []}}
    command = "" if results else _command_for(said)
    if command:
        arguments = json.dumps({"cmd": command})
        item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": "exec_command"}
        item |= {"arguments": arguments, "status": "completed"}
    else:
        text = _text_for(said, results)
        item = {"type": "message", "id": f"item_{number}", "role": "assistant", "status": "completed"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}}
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.delta", **place, "delta": text}
        item["content"] = [{"type": "output_text", "text": text, "annotations": []}]  # type: ignore[assignment]
    if WAIT in said:
        yield {"type": WAIT}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    whole = INPUT + CACHED
    used = {"input_tokens": whole, "input_tokens_details": {"cached_tokens": CACHED}, "output_tokens": OUTPUT}
    used |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": whole + OUTPUT}
    yield {
        "type": "response.completed",
        "response": {**response, "status": "completed", "output": [item], "usage": used},
    }
