"""What a turn used that no event tells: what its subagents wrote down, what they reported, and the rest of the process' totals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import UserMessage

from execution.ports import UsageReported
from execution.providers.claude import transcripts
from execution.providers.claude.counting import Counting
from execution.providers.claude.subagents import Subagents
from execution.providers.claude.translate import Translator
from execution.providers.claude.unreported import Unreported
from tests.execution.test_claude_result import result, said

TOTALS = {"claude": {"inputTokens": 74, "outputTokens": 54, "cacheCreationInputTokens": 9}}
COUNTS = {"input_tokens": 24, "output_tokens": 14}
AGENT = {"agentId": "a", "resolvedModel": "claude", "usage": {"input_tokens": 30, "output_tokens": 30}}
SESSION = "projects/-work/s"
EARLY, PROMPT, LATE = "2026-11-27T10:00:00.000Z", "2026-11-27T11:00:00.000Z", "2026-11-27T11:00:01.000Z"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """The CLI's configuration directory, without any subagent."""
    (tmp_path / "projects" / "-work").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def directory(configuration: Path) -> Path:
    """Where the session's subagents write."""
    made = configuration / SESSION / "subagents"
    made.mkdir(parents=True)
    return made


def line(message_id: str, output: int, *, at: str = LATE, **fields: Any) -> str:
    usage = {"input_tokens": 10, "output_tokens": output}
    message = {"id": message_id, "model": "claude", "content": [{"type": "text", "text": "aside"}], "usage": usage}
    return json.dumps({"type": "assistant", "isSidechain": True, "timestamp": at, "message": message, **fields}) + "\n"


class Turn:
    """One turn that hears messages of the CLI; `used` is what the ledger gets, by message: input and output."""

    def __init__(self, configuration: Path, *, counting: Counting | None = None, whole: bool = True) -> None:
        counting = counting or Counting()
        self.translator = Translator(counting)
        self.translator.totals_are_whole = whole
        self.unreported = Unreported(counting, Subagents(configuration, SESSION))
        self._told: dict[str, Any] = {}

    def hear(self, *messages: Any) -> Turn:
        for message in messages:
            for event in self.translator.take(message):
                if isinstance(event, UsageReported):
                    self._told[event.usage.message_id] = event.usage
        return self

    def delegate(self) -> Turn:
        return self.hear(UserMessage(content=[], parent_tool_use_id="t"))

    def used(self, *, over: bool = True) -> dict[str, tuple[int, int]]:
        beside = {usage.message_id: usage for usage in self.unreported.known(self.translator, over=over)}
        return {name: (usage.input_uncached, usage.output) for name, usage in {**self._told, **beside}.items()}


class TestTotals:
    """The rest is what the CLI's totals have above all messages."""

    def test_what_no_message_told_is_the_rest(self, configuration: Path) -> None:
        turn = Turn(configuration).hear(said("Hi", message_id="m", usage=COUNTS))
        turn.hear(UserMessage(content=[], tool_use_result=AGENT), result(model_usage=TOTALS))
        assert turn.used() == {"m": (24, 14), "agent:a": (30, 30), "rest:": (20, 10)}

    def test_is_asked_for_as_often_as_one_likes(self, configuration: Path) -> None:
        turn = Turn(configuration).hear(said("Hi", message_id="m", usage=COUNTS), result(model_usage=TOTALS))
        assert turn.used() == turn.used() == {"m": (24, 14), "rest:": (50, 40)}

    def test_that_agree_add_nothing_even_under_another_name(self, configuration: Path) -> None:
        totals = {"claude-20260101": {"inputTokens": 24, "outputTokens": 14}}
        turn = Turn(configuration).hear(said("Hi", message_id="m", usage=COUNTS), result(model_usage=totals))
        assert turn.used() == {"m": (24, 14)}

    def test_of_zero_take_nothing_back(self, configuration: Path) -> None:
        totals = {"claude": {"inputTokens": 0, "outputTokens": 0}}
        turn = Turn(configuration).hear(said("Hi", message_id="m", usage=COUNTS), result(model_usage=totals))
        assert turn.used() == {"m": (24, 14)}

    def test_of_a_resumed_session_are_not_counted(self, configuration: Path) -> None:
        turn = Turn(configuration, whole=False)
        turn.hear(said("Hi", message_id="m", usage=COUNTS), result(model_usage=TOTALS))
        assert turn.used() == {"m": (24, 14)}

    def test_the_next_turn_of_the_process_does_not_count_the_rest_again(self, configuration: Path) -> None:
        counting = Counting()
        Turn(configuration, counting=counting).hear(result(model_usage=TOTALS)).used()
        assert Turn(configuration, counting=counting).hear(result(model_usage=TOTALS)).used() == {}


class TestSubagents:
    """Each message of a subagent is counted as its transcript has it."""

    def test_nothing_is_looked_for_before_there_is_one(self, configuration: Path, directory: Path) -> None:
        turn = Turn(configuration)
        (directory / "agent-a.jsonl").write_text(line("i1", 400))
        assert turn.used() == {}

    def test_a_message_counts_as_soon_as_it_is_written(self, configuration: Path, directory: Path) -> None:
        turn = Turn(configuration).delegate()
        beginning = {"input_tokens": 10, "output_tokens": 1}
        turn.hear(said("", message_id="i1", usage=beginning, parent_tool_use_id="t"))
        assert turn.used(over=False) == {"i1": (10, 1)}
        with (directory / "agent-a.jsonl").open("a") as file:
            file.write(line("i1", 400))
            file.flush()
            assert turn.used(over=False) == {"i1": (10, 400)}
            file.write(line("i2", 300)[:-20])
            file.flush()
            assert turn.used(over=False) == {"i1": (10, 400)}, "half a line is none"
            file.write(line("i2", 300)[-20:])
        assert turn.used(over=False) == {"i1": (10, 400), "i2": (10, 300)}

    def test_its_own_report_is_not_counted_beside_its_messages(self, configuration: Path, directory: Path) -> None:
        turn = Turn(configuration, whole=False).delegate()
        (directory / "agent-a.jsonl").write_text(line("i1", 400) + line("i2", 30))
        turn.hear(UserMessage(content=[], tool_use_result=AGENT), result())
        assert turn.used() == {"i1": (10, 400), "i2": (10, 30)}

    def test_the_totals_are_compared_with_them(self, configuration: Path, directory: Path) -> None:
        turn = Turn(configuration).delegate()
        (directory / "agent-a.jsonl").write_text(line("i1", 40))
        turn.hear(said("Hi", message_id="m", usage=COUNTS), result(model_usage=TOTALS))
        assert turn.used() == {"m": (24, 14), "i1": (10, 40), "rest:": (40, 0)}

    def test_those_of_earlier_turns_are_over(self, configuration: Path, directory: Path) -> None:
        transcript = directory / "agent-a.jsonl"
        transcript.write_text(line("i1", 400))
        turn = Turn(configuration, whole=False).delegate()
        with transcript.open("a") as file:  # the same subagent is asked for more
            file.write(line("i2", 7))
        assert turn.used() == {"i2": (10, 7)}

    def test_another_worker_goes_on_from_where_the_turn_began(self, configuration: Path, directory: Path) -> None:
        transcript = directory / "agent-a.jsonl"
        transcript.write_text(line("i1", 400))
        first = Subagents(configuration, SESSION)
        with transcript.open("a") as file:
            file.write(line("i2", 7))
        assert [entry["message"]["id"] for _, entry in first.said()] == ["i2"]
        second = Subagents(configuration, SESSION, ends=json.loads(json.dumps(first.began)))
        assert [entry["message"]["id"] for _, entry in second.said()] == ["i2"]

    @pytest.mark.parametrize(
        "nonsense",
        [
            b"\xff\xfe\x00\n",
            b'"assistant"\n',
            b'{"assistant": ' + b"[" * 100_000 + b"\n",
            b'{"type": "assistant", "message": ["x"]}\n',
            b'{"type": "assistant", "message": {"id": "x", "model": "claude", "usage": "many"}}\n',
            b'{"type": "assistant", "message": {"id": "x", "model": "claude", "usage": {"output_tokens": "many"}}}\n',
            b'{"type": "assistant", "message": {"id": "x", "model": "claude", "usage": {"output_tokens": 1e999}}}\n',
            b'{"type": "assistant", "message": {"id": "x", "model": "m", "usage": {"output_tokens_details": [1]}}}\n',
        ],
    )
    def test_what_no_cli_writes_counts_for_nothing(self, configuration: Path, directory: Path, nonsense: bytes) -> None:
        turn = Turn(configuration, whole=False).delegate()
        (directory / "agent-a.jsonl").write_bytes(nonsense + line("i1", 400).encode())
        assert turn.used() == {"i1": (10, 400)}

    def test_what_is_too_much_for_one_look_is_read_the_next_time(
        self, configuration: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("execution.providers.claude.subagents._MOST_BYTES", len(line("i1", 1)) + 10)
        turn = Turn(configuration, whole=False).delegate()
        (directory / "agent-a.jsonl").write_text(line("i1", 1) + line("i2", 2))
        (directory / "agent-b.jsonl").write_text("x" * 1000 + "\n" + line("i3", 3))
        for _ in range(20):
            turn.used(over=False)
        assert turn.used() == {"i1": (10, 1), "i2": (10, 2), "i3": (10, 3)}

    def test_no_link_and_no_pipe_is_followed(self, configuration: Path, directory: Path, tmp_path: Path) -> None:
        turn = Turn(configuration, whole=False).delegate()
        elsewhere = tmp_path / "elsewhere.jsonl"
        elsewhere.write_text(line("theirs", 400))
        (directory / "agent-a.jsonl").symlink_to(elsewhere)
        os.mkfifo(directory / "agent-b.jsonl")
        (directory / "agent-c.jsonl").mkdir()
        assert turn.used() == {}

    def test_a_link_in_the_place_of_their_directory_is_not_followed(self, configuration: Path, tmp_path: Path) -> None:
        others = tmp_path / "others"
        others.mkdir()
        (configuration / SESSION).mkdir()
        (configuration / SESSION / "subagents").symlink_to(others)
        turn = Turn(configuration, whole=False).delegate()
        (others / "agent-a.jsonl").write_text(line("theirs", 400))
        assert turn.used() == {}


class TestALostTurn:
    """What is recovered of a turn that nobody heard to its end has its subagents' messages too."""

    @pytest.fixture
    def transcript(self, configuration: Path) -> Path:
        path = configuration / f"{SESSION}.jsonl"
        prompt = json.dumps({"type": "user", "uuid": "u", "timestamp": PROMPT}) + "\n"
        content = [{"type": "text", "text": "Let me ask."}]
        message = {"id": "m", "model": "claude", "content": content, "usage": COUNTS, "stop_reason": "tool_use"}
        path.write_text(prompt + json.dumps({"type": "assistant", "timestamp": LATE, "message": message}) + "\n")
        return path

    def test_they_are_counted_and_are_no_answer(self, configuration: Path, transcript: Path, directory: Path) -> None:
        (directory / "agent-a.jsonl").write_text(line("i1", 400, isSidechain=False))
        recovered = transcripts.recover(configuration, "s", "u")
        assert recovered is not None
        assert (recovered.text, recovered.is_whole) == ("Let me ask.", False)
        assert {usage.message_id: usage.output for usage in recovered.usages} == {"m": 14, "i1": 400}

    def test_those_of_earlier_turns_are_not(self, configuration: Path, transcript: Path, directory: Path) -> None:
        (directory / "agent-a.jsonl").write_text(line("old", 400, at=EARLY) + line("i1", 7))
        recovered = transcripts.recover(configuration, "s", "u")
        assert recovered is not None
        assert {usage.message_id: usage.output for usage in recovered.usages} == {"m": 14, "i1": 7}
