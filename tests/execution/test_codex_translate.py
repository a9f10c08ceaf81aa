"""From the app-server's notifications to events: counting, texts, tools, ends. Without a CLI."""

from __future__ import annotations

from typing import Any

import pytest
from openai_codex.generated.v2_all import FileChangeThreadItem, TokenUsageBreakdown

from execution.ports import ProviderEvent, TextDelta, ToolFinished, ToolStarted
from execution.providers.codex.calls import calls_of, command_call
from execution.providers.codex.counting import Counting
from execution.providers.codex.rpc import Incoming
from execution.providers.codex.translate import Translator
from execution.retrying import Retrying
from execution.shim.pipes import Unintelligible
from execution.states import Cause
from execution.states import OutcomeClass as Class


def total(input: int, cached: int = 0, output: int = 0, reasoning: int = 0, written: int = 0) -> TokenUsageBreakdown:
    return TokenUsageBreakdown(
        input_tokens=input,
        cached_input_tokens=cached,
        cache_write_input_tokens=written,
        output_tokens=output,
        reasoning_output_tokens=reasoning,
        total_tokens=input + output,
    )


def told(method: str, **params: Any) -> Incoming:
    return Incoming(method, {"threadId": "th", "turnId": "tu", "startedAtMs": 1, "completedAtMs": 1, **params})


def message(text: str) -> dict[str, Any]:
    return {"type": "agentMessage", "id": "m", "text": text}


def command(status: str, **fields: Any) -> dict[str, Any]:
    item = {
        "type": "commandExecution",
        "id": "c",
        "command": "/bin/bash -c 'echo hi'",
        "cwd": "/",
        "commandActions": [],
    }
    return {**item, "status": status, **fields}


def delta(text: str) -> Incoming:
    return told("item/agentMessage/delta", itemId="m", delta=text)


def completed(**turn: Any) -> Incoming:
    return told("turn/completed", turn={"id": "tu", "items": [], "status": "completed", **turn})


@pytest.fixture
def translator() -> Translator:
    return Translator(Counting({}), session_id="ours", model="gpt-5.6-luna", max_steps=9)


def play(translator: Translator, *incoming: Incoming) -> list[ProviderEvent]:
    return [event for one in incoming for event in translator.take(one)]


class TestCounting:
    def test_takes_cached_tokens_out_of_the_input(self) -> None:
        usage = Counting({}).take(total(100, cached=30, written=10, output=20, reasoning=5), turn_id="t", model="m")
        assert (usage.input_uncached, usage.cache_read, usage.cache_write_5m) == (60, 30, 10)
        assert (usage.output, usage.reasoning, usage.message_id, usage.model) == (20, 5, "t:1", "m")

    def test_a_running_total_becomes_differences(self) -> None:
        counting = Counting({})
        counting.take(total(100, cached=30, output=20), turn_id="t", model="m")
        usage = counting.take(total(250, cached=130, output=27), turn_id="t", model="m")
        assert (usage.input_uncached, usage.cache_read, usage.output, usage.message_id) == (50, 100, 7, "t:2")

    def test_a_total_that_is_told_again_counts_nothing(self) -> None:
        counting = Counting({})
        counting.take(total(100, output=20), turn_id="t", model="m")
        assert counting.take(total(100, output=20), turn_id="t", model="m") is None
        assert Counting(counting.used).take(total(100, output=20), turn_id="u", model="m") is None

    def test_a_total_that_was_set_back_counts_from_nothing(self) -> None:
        counting = Counting({})
        counting.take(total(100, output=20), turn_id="t", model="m")
        assert counting.take(total(0), turn_id="t", model="m") is None
        assert counting.take(total(70, output=3), turn_id="t", model="m").output == 3


class TestTexts:
    def test_messages_are_set_apart(self, translator: Translator) -> None:
        one = told("item/completed", item=message("One."))
        two = told("item/completed", item=message("Two."))
        events = play(translator, delta("One."), one, delta("Tw"), delta("o."), two, completed())
        assert (
            "".join(event.text for event in events if isinstance(event, TextDelta)) == events[-1].text == "One.\n\nTwo."
        )
        assert (events[-1].outcome, events[-1].session_id) == (Class.OK, "ours")

    def test_a_message_that_is_begun_anew_replaces_what_was_written(self, translator: Translator) -> None:
        error = {"message": "x", "codexErrorInfo": {"responseStreamDisconnected": {"httpStatusCode": None}}}
        again = told("error", error=error, willRetry=True)
        events = play(translator, delta("Onc"), again, delta("Once."), told("item/completed", item=message("Once.")))
        assert translator.said == "Once."
        (waits,) = [event for event in events if isinstance(event, Retrying)]
        assert (waits.because.cause, waits.at) == (Cause.UNREACHABLE, None)
        assert waits.text == "OpenAI gave no usable answer; trying again."


class TestTools:
    def test_a_command_is_told_without_its_shell(self, translator: Translator) -> None:
        begun = told("item/started", item=command("inProgress"))
        done = told("item/completed", item=command("completed", aggregatedOutput="hi\n", exitCode=0))
        assert play(translator, begun, done) == [ToolStarted("c", "Bash", "echo hi"), ToolFinished("c", True, "hi\n")]

    def test_a_command_that_failed_did_not_go_well(self, translator: Translator) -> None:
        done = told("item/completed", item=command("completed", aggregatedOutput="", exitCode=1))
        assert play(translator, done)[-1].ok is False

    def test_a_refused_command_says_why(self, translator: Translator) -> None:
        translator.refusals["c"] = "Not on a Sunday."
        done = told("item/completed", item=command("declined"))
        assert play(translator, done)[-1] == ToolFinished("c", False, "Not on a Sunday.")

    @pytest.mark.parametrize(
        ("told", "command"),
        [
            ("/bin/bash -lc 'ls -l'", "ls -l"),
            ("/bin/bash -c ls", "ls"),
            ("/usr/bin/python -c 'print(1)'", "/usr/bin/python -c 'print(1)'"),
            ("bash -c 'a' b", "bash -c 'a' b"),
            ("it's not closed", "it's not closed"),
        ],
    )
    def test_only_the_shell_that_codex_adds_is_taken_off(self, told: str, command: str) -> None:
        assert command_call("c", told).target == command

    def test_a_file_that_moves_is_asked_for_under_both_names(self) -> None:
        change = {"path": "/w/a", "kind": {"type": "update", "move_path": "/w/b"}, "diff": "d"}
        item = FileChangeThreadItem.model_validate(
            {"type": "fileChange", "id": "f", "changes": [change], "status": "inProgress"}
        )
        assert [(call.tool, call.target) for call in calls_of(item)] == [("Edit", "/w/a"), ("Edit", "/w/b")]

    def test_what_does_not_keep_to_the_protocol_is_not_guessed_at(self, translator: Translator) -> None:
        with pytest.raises(Unintelligible):
            play(translator, Incoming("turn/completed", {"turn": {}}))
