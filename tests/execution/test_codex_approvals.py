"""Which call an app-server's question is about, and what is remembered of an answer that another worker gave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from execution.providers.codex.approvals import COMMAND, ELICITATION, Approvals
from execution.providers.codex.counting import Counting
from execution.providers.codex.rpc import Incoming, Peer
from execution.providers.codex.translate import Translator
from execution.toolcalls import ToolCall, Verdict


class Pipe:
    """Pipes to an app-server that keep what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def write(self, line: str) -> None:
        self.lines.append(line)


class Scene:
    """A turn whose judge refuses what is in `refused`."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.judged, self.pipe = refused, [], Pipe()
        self.translator = Translator(Counting({}), session_id="s", model="m", max_steps=9)
        self.approvals = Approvals(Peer(self.pipe), self.translator, self.judge, explain=self.explain)

    def judge(self, call: ToolCall) -> Verdict:
        self.judged.append(call.tool)
        return Verdict(call.tool not in self.refused, "No.")

    async def explain(self, _: str) -> bool:
        return True

    def begins(self, number: int, tool: str, **arguments: Any) -> None:
        item = {"type": "mcpToolCall", "id": f"call-{number}", "server": "crm", "tool": tool, "arguments": arguments}
        told = {"item": {**item, "status": "inProgress"}, "threadId": "t", "turnId": "t", "startedAtMs": 0}
        list(self.translator.take(Incoming("item/started", told)))

    def asks(self, *questions: Incoming) -> str:
        """Ask, and return what was answered."""

        async def ask() -> None:
            for question in questions:
                self.approvals.ask(question)
            while self.approvals._answering:
                await asyncio.sleep(0.001)

        asyncio.run(ask())
        return "".join(self.pipe.lines)


def asked(number: int = 1, kind: str = "mcp_tool_call", **arguments: Any) -> Incoming:
    meta = {"codex_approval_kind": kind, "tool_params": arguments}
    return Incoming(ELICITATION, {"serverName": "crm", "_meta": meta}, number)


def test_a_call_is_found_by_its_server_and_input() -> None:
    scene = Scene("mcp__crm__delete")
    scene.begins(1, "find", name="a")
    scene.begins(2, "delete", name="b")
    assert '"accept"' in scene.asks(asked(name="a"))
    assert scene.judged == ["mcp__crm__find"]


def test_where_a_question_fits_two_calls_both_are_judged() -> None:
    scene = Scene("mcp__crm__delete")
    scene.begins(1, "find", name="a")
    scene.begins(2, "delete", name="a")
    assert '"decline"' in scene.asks(asked(name="a"))


@pytest.mark.parametrize(
    "question",
    [
        asked(name="another"),
        asked(kind="", name="a"),
        Incoming(ELICITATION, {"serverName": "crm", "mode": "form"}, 1),
        Incoming(COMMAND, {"itemId": "x", "command": "ls", "networkApprovalContext": {"host": "a"}}, 1),
        Incoming(COMMAND, {"itemId": "x"}, 1),
    ],
)
def test_what_is_no_call_we_know_is_refused(question: Incoming) -> None:
    scene = Scene()
    scene.begins(1, "find", name="a")
    assert '"decline"' in scene.asks(question)
    assert scene.judged == []


def test_a_question_cannot_be_asked_for_the_same_call_twice() -> None:
    scene = Scene()
    scene.begins(1, "find", name="a")
    assert scene.asks(asked(1, name="a"), asked(2, name="a")).count('"accept"') == 1


def test_what_nobody_serves_is_no_permission() -> None:
    assert "error" in Scene().asks(Incoming("item/tool/requestUserInput", {}, 1))


def test_what_another_worker_has_answered_is_not_judged_but_its_reason_is_known() -> None:
    scene = Scene()
    scene.begins(1, "find", name="a")
    answered = Incoming(ELICITATION, asked(name="a").params, 1, {"action": "decline", "reason": "Not on a Sunday."})
    assert (scene.asks(answered), scene.judged) == ("", [])
    assert scene.translator.refusals == {"call-1": "Not on a Sunday."}
