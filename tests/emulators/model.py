"""A model API on loopback for tests and benchmarks: aimock behind a front of ours.

    with ModelEmulator() as model:
        model.reply("weather", "Sunny.", usage=Usage(cache_read=900))
        ...  # ANTHROPIC_BASE_URL=model.url
        assert "Ada" in model.requests[-1].system_text

What no rule fits is answered by "You said: …". The newest fitting rule wins. Texts are matched against the last user
message; a rule never matches a request that brings tool results unless it was made by `call_tool`.
"""

import json
import threading
import time
from typing import Any, Self

from tests.emulators import node
from tests.emulators.background import BackgroundServer
from tests.emulators.gate import Gate
from tests.emulators.loopback import post
from tests.emulators.model_front import ModelFront
from tests.emulators.model_rules import Match, ModelRequest, Rule, Usage

__all__ = ["Gate", "ModelEmulator", "ModelRequest", "Usage"]

ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your account has no credit left."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: no-such-model"),
    413: ("request_too_large", "Request exceeds the maximum allowed number of bytes."),
    429: ("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    529: ("overloaded_error", "Overloaded"),
}


class ModelEmulator:
    """Base URL in `url`; `requests` are the model calls so far, `all_requests` everything that came in.

    `latency` in seconds goes before every answer, `pace` in seconds before every event of a streamed one.
    """

    def __init__(self, *, latency: float = 0.0, pace: float = 0.0) -> None:
        self.latency = latency
        self.pace = pace
        self.all_requests: list[ModelRequest] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def start(self) -> Self:
        self._process, self._upstream = node.start("aimock.mjs")
        front = ModelFront(self._upstream, self.all_requests, self._choose)
        self._server = BackgroundServer(front.application)
        self._server.start()
        return self

    def stop(self) -> None:
        self._server.stop()
        node.stop(self._process)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def requests(self) -> list[ModelRequest]:
        return [request for request in list(self.all_requests) if request.is_message]

    def wait_for_requests(self, count: int, timeout: float = 120) -> list[ModelRequest]:
        """Wait until at least `count` model calls came in."""
        deadline = time.monotonic() + timeout
        while len(self.requests) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Waited {timeout:.0f} s for {count} model calls; {len(self.requests)} came.")
            time.sleep(0.01)
        return self.requests

    def clear(self) -> None:
        """Forget all rules and requests."""
        with self._lock:
            self._rules.clear()
        self.all_requests.clear()

    def reply(self, match: Match, text: str, **rule: Any) -> Rule:
        """Answer `text`. Options of every rule: usage, latency, times (then the rule is spent), headers, gate."""
        return self._add(Rule(match, fixture=self._fixture({"content": text}), **rule))

    def call_tool(self, match: Match, tool: str, arguments: dict[str, Any], *, then: str, **rule: Any) -> Rule:
        """Ask for one tool call; when its result comes back, answer `then`. The call's id is the rule's name."""
        asking = Rule(match, **rule)
        call = {"id": f"toolu_{asking.name}", "name": tool, "arguments": json.dumps(arguments)}
        asking.fixture = self._fixture({"toolCalls": [call]})
        answering = Rule(lambda request: call["id"] in request.tool_results, usage=asking.usage)
        answering.fixture = self._fixture({"content": then})
        self._add(answering)
        return self._add(asking)

    def call_script(self, match: Match, script: str, *, then: str, **rule: Any) -> Rule:
        """Ask for one call of Codex's `exec`, which takes a script as free text; when its result comes back, answer `then`.

        aimock knows no tools with free text, so the front writes this answer.
        """
        asking = Rule(match, "script", details={"script": script}, **rule)
        answering = Rule(lambda request: f"call_{asking.name}" in request.tool_results, usage=asking.usage)
        answering.fixture = self._fixture({"content": then})
        self._add(answering)
        return self._add(asking)

    def fail(
        self,
        match: Match,
        status: int,
        *,
        message: str = "",
        kind: str = "",
        code: str = "",
        retry_after: int | None = None,
        **rule: Any,
    ) -> Rule:
        """Answer with an API error; `ERRORS` has the type and text of each status."""
        usual, text = ERRORS[status]
        error = {"type": kind or usual, "message": message or text, **({"code": code} if code else {})}
        response: dict[str, Any] = {"error": error, "status": status}
        if retry_after is not None:
            response["retryAfter"] = retry_after
        return self._add(Rule(match, fixture=self._fixture(response), **rule))

    def cut(self, match: Match, text: str, *, after_events: int = 3, **rule: Any) -> Rule:
        """Drop the connection in the middle of the answer."""
        return self._add(
            Rule(match, fixture=self._fixture({"content": text}), details={"cut_after": after_events}, **rule)
        )

    def outgrow(self, match: Match, text: str, **rule: Any) -> Rule:
        """Answer as a model that has written as much as it may: the message ends with this text."""
        return self._add(Rule(match, fixture=self._fixture({"content": text}), details={"stop": "max_tokens"}, **rule))

    def hold(self, match: Match, text: str, *, after_events: int = 0, **rule: Any) -> Gate:
        """Keep the answer back (or, with `after_events`, the rest of it) until the returned gate is released.

        The first text arrives with the third event; aimock sends twenty characters in an event.
        """
        gate = Gate()
        details = {"after_events": after_events}
        self._add(Rule(match, fixture=self._fixture({"content": text}), gate=gate, details=details, **rule))
        return gate

    def garbage(
        self, match: Match, *, body: bytes = b"<html>Bad gateway", content_type: str = "text/html", **rule: Any
    ) -> Rule:
        """Answer 200 with something that is no answer."""
        return self._add(Rule(match, "garbage", details={"body": body, "content_type": content_type}, **rule))

    def silence(self, match: Match, seconds: float, *, headers_first: bool = True, **rule: Any) -> Rule:
        """Start an answer (or not even that), say nothing for so long, and hang up."""
        return self._add(Rule(match, "silence", details={"seconds": seconds, "headers_first": headers_first}, **rule))

    def flood(self, match: Match, megabytes: int, **rule: Any) -> Rule:
        """Answer with that much text."""
        return self._add(Rule(match, "flood", details={"megabytes": megabytes}, **rule))

    def _fixture(self, response: dict[str, Any]) -> dict[str, Any]:
        return {"response": response, "latency": int(self.pace * 1000)}

    def _add(self, rule: Rule) -> Rule:
        rule.latency = rule.latency or self.latency
        if rule.fixture:
            fixture = {"match": {"context": rule.name}, **rule.fixture}
            post(f"{self._upstream}/__aimock/fixtures", {"fixtures": [fixture]})
        with self._lock:
            self._rules.insert(0, rule)
        return rule

    def _choose(self, request: ModelRequest) -> Rule:
        with self._lock:
            rule = next((rule for rule in self._rules if rule.fits(request)), None)
            if rule:
                rule.use()
                return rule
        return Rule("", latency=self.latency)
