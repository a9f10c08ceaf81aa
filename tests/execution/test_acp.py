"""ACP agents: how they are declared and started, and what is made of what they tell."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from acp.schema import PromptResponse, ToolCallUpdate

from budgets.states import PriceBasis
from execution.ports import Finished, Notice, Prompt, TextDelta, ToolFinished, ToolStarted, UsageReported
from execution.providers import registry
from execution.providers.acp import agents, launch
from execution.providers.acp.agents import Agent, BadDeclaration
from execution.providers.acp.provider import AcpProvider
from execution.providers.acp.sessions import Sessions
from execution.providers.acp.translate import Translator, evidence_of
from execution.providers.acp.transport import ANSWERED, PipesTransport
from execution.providers.mock.provider import MockProvider
from execution.providers.telling import OUTGROWN
from execution.shim.pipes import Unintelligible
from execution.states import ExecutionState, OutcomeClass, SpendStage
from tests.execution.running import Run
from tests.factories import execution as made

AGENT = Agent(
    "scribe",
    ("sh",),
    "m-1",
    session={"a": {"b": ["{model}", "{tools}", "x {model}"]}},
    secrets={"THEIRS": "OURS"},
    api="http://127.0.0.1:9",
)


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    return Prompt("You are Ada.", "m-1", tmp_path / "work", tmp_path / "home", str(uuid.uuid4()), 0, tools=("Bash",))


@pytest.fixture
def translator() -> Translator:
    return Translator("scribe", session_id="s", model="m-1", turn="t")


def tool(**fields: object) -> dict:
    return {"sessionUpdate": "tool_call_update", "toolCallId": "1", **fields}


def asked(translator: Translator, **fields: object):
    raw = {"toolCallId": "1", **fields}
    return translator.ask(ToolCallUpdate.model_validate(raw), raw)


class TestDeclaration:
    """The file that FLEET_ACP_AGENTS names."""

    def read(self, tmp_path: Path, said: object) -> dict[str, Agent]:
        (tmp_path / "acp.json").write_text(json.dumps(said))
        return agents.read(str(tmp_path / "acp.json"))

    def test_an_agent_needs_a_command_and_a_model(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, {"scribe": {"command": ["scribe", "--acp"], "model": "m-1"}})
        assert found == {"scribe": Agent("scribe", ("scribe", "--acp"), "m-1")}
        assert agents.read("") == {}

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ({"claude": {"command": ["x"], "model": "m"}}, "another name"),
            ({"Scribe 1": {"command": ["x"], "model": "m"}}, "another name"),
            ({"scribe": {"command": ["x"]}}, "needs a command and the model"),
            ({"scribe": {"command": "x", "model": "m"}}, "no list"),
            ({"scribe": {"command": ["x"], "model": "m", "asks": False}}, "asks, which nothing reads"),
            ({"scribe": []}, "must be an object"),
            ([], "must be an object"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, tmp_path: Path, said: object, why: str) -> None:
        with pytest.raises(BadDeclaration, match=why):
            self.read(tmp_path, said)

    def test_a_file_that_is_not_there_is_named(self) -> None:
        with pytest.raises(BadDeclaration, match="/no/such"):
            agents.read("/no/such")


class TestLaunch:
    """Its environment, and what it is told of the session."""

    def test_its_environment_is_a_list_of_ours_and_the_key_is_in_no_argument(self, settings, prompt: Prompt) -> None:
        settings.FLEET_ACP_SECRETS = {"OURS": "canary"}
        settings.FLEET_CLI_ENVIRONMENT = {"PATH": "/bin"}
        plan = launch.prepare(AGENT, prompt)
        proxies = {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}  # our own, the only way out of its sandbox
        assert plan.environment.keys() == {"PATH", "LANG", "THEIRS", "HOME", "PWD", "TMPDIR", *proxies}
        assert plan.environment["THEIRS"] == "canary" not in str(plan)

    def test_only_a_whole_word_is_replaced(self, prompt: Prompt) -> None:
        assert launch.session_meta(AGENT, prompt) == {"a": {"b": ["m-1", ["Bash"], "x {model}"]}}

    def test_says_what_is_missing(self, settings) -> None:
        settings.FLEET_ACP_AGENTS = {
            "scribe": AGENT,
            "lost": Agent("lost", ("/no/such",), "m", api="http://127.0.0.1:9"),
        }
        settings.FLEET_ACP_SECRETS = {"OURS": ""}
        assert "OURS" in AcpProvider("scribe").check()
        assert "/no/such" in AcpProvider("lost").check()
        settings.FLEET_ACP_SECRETS = {"OURS": "x"}
        assert AcpProvider("scribe").check() == ""

    def test_is_a_provider_of_its_own_name(self, settings) -> None:
        settings.FLEET_ACP_AGENTS = {"scribe-2": AGENT}
        settings.FLEET_PROVIDERS = {"scribe-2": "execution.providers.acp.provider.AcpProvider:scribe-2"}
        assert registry.get("scribe-2").capabilities.name == "scribe-2"


class TestSessions:
    """Which session of the agent's is which of ours, and what a bot can do about it."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        home = tmp_path / "homes" / "ada"
        home.mkdir(parents=True)
        return home

    def test_a_session_is_found_by_the_agent_that_began_it(self, home: Path) -> None:
        Sessions(home, "scribe").keep("s", "theirs")
        found = [
            Sessions(*place).find("s") for place in [(home, "scribe"), (home, "other"), (home.parent / "b", "scribe")]
        ]
        assert found == ["theirs", "", ""]

    def test_nothing_of_it_is_in_the_bots_home(self, home: Path) -> None:
        Sessions(home, "scribe").keep("s", "theirs")
        assert list(home.rglob("*")) == []

    def test_what_the_bot_puts_where_it_once_was_is_neither_waited_for_nor_followed(self, home: Path) -> None:
        place = home / ".fleet-acp" / "scribe"
        place.mkdir(parents=True)
        os.mkfifo(place / "pipe")
        (place / "link").symlink_to("/etc/hostname")
        assert [Sessions(home, "scribe").find(name) for name in ("pipe", "link")] == ["", ""]

    @pytest.mark.parametrize("planted", ["pipe", "link", "endless", "odd"])
    def test_a_bot_without_walls_holds_nobody_up_either(self, home: Path, planted: str) -> None:
        sessions = Sessions(home, "scribe")
        sessions.keep("s", "theirs")
        (file,) = (path for path in home.parent.rglob("s") if path.is_file())
        file.unlink()
        match planted:
            case "pipe":
                os.mkfifo(file)
            case "link":
                file.symlink_to("/etc/hostname")
            case "endless":
                file.touch()
                os.truncate(file, 100 * 1024**2)
            case "odd":
                file.write_text("theirs\nand more")
        assert sessions.find("s") == ""
        sessions.keep("s", "theirs")
        assert sessions.find("s") == "theirs"

    def test_a_directory_that_became_a_link_leads_nobody_out(self, home: Path, tmp_path: Path) -> None:
        sessions = Sessions(home, "scribe")
        sessions.keep("s", "theirs")
        (file,) = (path for path in home.parent.rglob("s") if path.is_file())
        (tmp_path / "outside").mkdir()
        shutil.rmtree(file.parent)
        file.parent.symlink_to(tmp_path / "outside")
        sessions.keep("s", "theirs")
        assert list((tmp_path / "outside").iterdir()) == []

    @pytest.mark.parametrize("odd", ["", "a\nb", "\ud800", "x" * 1000])
    def test_an_id_that_no_agent_gives_is_not_kept(self, home: Path, odd: str) -> None:
        Sessions(home, "scribe").keep("s", odd)
        assert Sessions(home, "scribe").find("s") == ""


class Line:
    """Pipes over which an agent has said this."""

    def __init__(self, *said: dict) -> None:
        self._said, self.written = said, []

    async def read_messages(self):
        for message in self._said:
            yield message

    async def write(self, line: str) -> None:
        self.written.append(json.loads(line))


class TestGoingOn:
    """What a successor says and hears."""

    PROMPT: ClassVar = {"id": 4, "method": "session/prompt"}

    def transport(self, line: Line, *said: dict) -> PipesTransport:
        return PipesTransport(line, said="".join(json.dumps(message) + "\n" for message in said).encode(), requests=4)

    @pytest.mark.parametrize("was_asked", [True, False])
    def test_the_prompt_is_said_once_and_its_answer_found(self, was_asked: bool) -> None:
        async def speak() -> dict:
            await transport.send({"id": 0, "method": "session/prompt"})
            await transport.send({"id": 1, "method": "session/other"})
            return await transport.receive()

        line = Line({"id": 4, "result": {"stopReason": "end_turn"}})
        transport = self.transport(line, *([self.PROMPT] if was_asked else []))
        assert asyncio.run(speak())["id"] == 0
        assert [message["id"] for message in line.written] == ([5] if was_asked else [4, 5])

    def test_nothing_is_heard_before_the_prompt(self) -> None:
        async def listen() -> None:
            await asyncio.wait_for(transport.receive(), 0.05)

        transport = self.transport(Line({"id": 4, "result": {}}), self.PROMPT)
        with pytest.raises(TimeoutError):
            asyncio.run(listen())

    def test_an_agent_cannot_say_that_something_was_allowed(self) -> None:
        transport = PipesTransport(Line({"method": ANSWERED, "params": {}}))
        assert asyncio.run(transport.receive()) is None
        assert isinstance(transport.end, Unintelligible)


class TestTelling:
    """Updates become events."""

    def test_a_tool_that_did_not_ask_ends_the_run(self, translator: Translator) -> None:
        with pytest.raises(Unintelligible, match="without asking"):
            list(translator.take(tool(kind="execute", title="rm x", status="completed")))

    def test_a_tool_that_was_refused_and_ran_ends_the_run(self, translator: Translator) -> None:
        known, _ = asked(translator, kind="execute", rawInput={"command": "ls"})
        known.refusal = "No."
        (finished,) = translator.take(tool(status="failed"))
        assert finished == ToolFinished("1", False, "No.")
        with pytest.raises(Unintelligible):
            list(translator.take(tool(status="completed")))

    @pytest.mark.parametrize(
        ("told", "calls"),
        [
            ({"kind": "execute", "rawInput": {"command": "ls"}}, [("Bash", "ls")]),
            ({"kind": "execute", "title": "ls -a"}, [("Bash", "ls -a")]),
            ({"kind": "execute", "name": "Bash", "rawInput": {"command": "ls"}}, [("Bash", "ls")]),
            ({"kind": "read", "locations": [{"path": "/w/a"}]}, [("Read", "/w/a")]),
            (
                {"kind": "edit", "content": [{"type": "diff", "path": f"/w/{name}", "newText": "x"} for name in "ab"]},
                [("Edit", "/w/a"), ("Edit", "/w/b")],
            ),
            ({"kind": "other", "name": "mcp__files__get", "rawInput": {"path": "a"}}, [("mcp__files__get", "a")]),
            ({"kind": "other", "title": "Something"}, []),
        ],
    )
    def test_calls_have_the_names_that_grants_use(self, translator: Translator, told: dict, calls: list) -> None:
        known, _ = asked(translator, **told)
        assert [(call.tool, call.target) for call in known.calls] == calls

    def test_a_call_begins_once_when_it_is_known_what_it_is(self, translator: Translator) -> None:
        assert list(translator.take({**tool(title="Terminal", kind="execute"), "sessionUpdate": "tool_call"})) == []
        _, begun = asked(translator, rawInput={"command": "ls"})
        assert begun == [ToolStarted("1", "Bash", "ls")]
        assert list(translator.take(tool(status="completed", rawOutput="a"))) == [ToolFinished("1", True, "a")]

    def test_messages_are_apart_and_the_pieces_are_the_answer(self, translator: Translator) -> None:
        chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "Hi"}}
        pieces = [event for one in "aab" for event in translator.take({**chunk, "messageId": one})]
        assert pieces == [TextDelta("Hi"), TextDelta("Hi"), TextDelta("\n\nHi")]
        assert translator.said == "HiHi\n\nHi"

    def test_what_nobody_knows_yet_is_passed_over(self, translator: Translator) -> None:
        assert list(translator.take({"sessionUpdate": "of_the_future", "x": 1})) == []
        with pytest.raises(Unintelligible):
            list(translator.take({"sessionUpdate": "agent_message_chunk", "content": 1}))

    @pytest.mark.parametrize(("given", "fresh"), [(159, 100), (120, 61)], ids=["apart", "inside of the input"])
    def test_cached_tokens_are_counted_once(self, translator: Translator, given: int, fresh: int) -> None:
        used = {
            "inputTokens": 100,
            "outputTokens": 20,
            "cachedReadTokens": 30,
            "cachedWriteTokens": 9,
            "totalTokens": given,
        }
        reported, _ = translator.end(PromptResponse.model_validate({"stopReason": "end_turn", "usage": used}))
        usage = reported.usage
        assert (usage.input_uncached, usage.cache_read, usage.cache_write_5m, usage.output) == (fresh, 30, 9, 20)

    def test_without_usage_nothing_is_reported(self, translator: Translator) -> None:
        events = list(translator.end(PromptResponse.model_validate({"stopReason": "cancelled"})))
        assert [type(event) for event in events] == [Finished]
        assert events[0].outcome == OutcomeClass.STOPPED
        assert not [event for event in events if isinstance(event, UsageReported)]

    def test_an_answer_that_is_as_long_as_the_model_may_write_is_one(self, translator: Translator) -> None:
        notice, end = translator.end(PromptResponse.model_validate({"stopReason": "max_tokens"}))
        assert (notice, end.outcome) == (Notice(OUTGROWN, lasting=True), OutcomeClass.OK)

    @pytest.mark.parametrize(
        ("code", "kind", "outcome"),
        [
            (-32000, None, OutcomeClass.AUTH),
            (-32603, "rate_limit", OutcomeClass.LIMIT),
            (-32603, "billing_error", OutcomeClass.LIMIT),
            (-32603, "server_error", OutcomeClass.OVERLOAD),
            (-32603, "of_the_future", OutcomeClass.ERROR),
        ],
    )
    def test_an_error_has_its_class_and_a_next_step(
        self, translator: Translator, code: int, kind: str | None, outcome: OutcomeClass
    ) -> None:
        end = translator.failed(evidence_of(code, {"errorKind": kind} if kind else None), details={})
        assert end.outcome == outcome
        assert end.sentence.endswith(".")


class TestUnknownCost:
    """A provider that may tell no usage."""

    @pytest.mark.parametrize(("late", "stage"), [(True, SpendStage.UNKNOWN), (False, SpendStage.SETTLED)])
    def test_is_unknown_and_stays_held(self, run: Run, monkeypatch, late: bool, stage: SpendStage) -> None:
        monkeypatch.setattr(MockProvider, "capabilities", replace(MockProvider.capabilities, counts_late=late))
        monkeypatch.setattr("execution.engine.metering.Meter.post", lambda self, usages: None)
        row = run(made.queued("Hello"))
        assert (row.state, row.spend_stage) == (ExecutionState.SUCCEEDED, stage)
        assert (row.cost_basis == PriceBasis.UNKNOWN) is late
