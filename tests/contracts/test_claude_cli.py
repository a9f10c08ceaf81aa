"""What the product relies on in the Claude CLI, asked of the CLI that the SDK's wheel carries.

A new version of the SDK brings a new CLI; a failing test here says which assumption it broke. The facts are collected in
tests/emulators/README.md.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.cli_probe import BareCli, Turn, bare_turn
from tests.emulators.model import ModelEmulator, Usage

pytestmark = pytest.mark.realcli

QUICK = {"CLAUDE_CODE_MAX_RETRIES": "1"}
TOOLS = ("--tools", "Bash,Read")


@pytest.fixture
def place(tmp_path: Path, model_emulator: ModelEmulator) -> dict[str, Any]:
    """Where a CLI lives in a test, and the model it talks to."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    return {"url": model_emulator.url, "home": tmp_path / "home", "cwd": tmp_path / "work", "arguments": TOOLS}


@pytest.fixture
def model(model_emulator: ModelEmulator) -> ModelEmulator:
    return model_emulator


def is_text(message: dict[str, Any]) -> bool:
    return message["type"] == "stream_event" and message["event"]["type"] == "content_block_delta"


def kinds(turn: Turn) -> list[str]:
    return [message.get("subtype") or message["type"] for message in turn.messages]


async def test_it_asks_nobody_before_the_first_prompt(model: ModelEmulator, place: dict[str, Any]) -> None:
    async with BareCli(**place) as cli:
        assert model.all_requests == []
        await cli.turn("hello")
    assert [request.path for request in model.all_requests] == ["/v1/messages?beta=true"]


async def test_the_result_names_the_message_it_answers(place: dict[str, Any]) -> None:
    async with BareCli(**place) as cli:
        one = await cli.say("one")
        two = await cli.say("two")
        await cli.finish(one)
        await cli.finish(two)
    assert one.result["user_message_uuids"] == [one.uuid]
    assert two.result["user_message_uuids"] == [two.uuid]


async def test_a_message_it_has_seen_is_done_without_an_answer(model: ModelEmulator, place: dict[str, Any]) -> None:
    first = await bare_turn("one", **place)
    resumed = place | {"arguments": [*TOOLS, f"--resume={first.result['session_id']}"]}
    async with BareCli(**resumed) as cli:
        again = await cli.say("one", id=first.uuid)
        await cli.read_until(again, lambda message: message.get("state") == "completed")
    assert again.messages[-1]["command_uuid"] == first.uuid
    assert not again.result
    assert len(model.requests) == 1


@pytest.mark.parametrize("text", ["/help", "/clear", "!ls", "#remember this", "read @secret.txt"])
async def test_chat_text_stays_text(model: ModelEmulator, place: dict[str, Any], text: str) -> None:
    (place["cwd"] / "secret.txt").write_text("the secret")
    turn = await bare_turn(text, **place)
    assert model.requests[-1].said == text
    assert b"the secret" not in model.requests[-1].body
    assert turn.result["result"] == f"You said: {text}"


async def test_tokens_and_cost_come_from_the_api(model: ModelEmulator, place: dict[str, Any]) -> None:
    usage = Usage(input=100, output=50, cache_read=10_000, cache_write_5m=2_000, cache_write_1h=3_000)
    model.reply("hello", "Hi.", usage=usage)
    turn = await bare_turn("hello", **place)
    reported = turn.result["usage"]
    assert {name: reported[name] for name in ("input_tokens", "output_tokens", "cache_creation")} == {
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 2_000, "ephemeral_1h_input_tokens": 3_000},
    }
    dollars_per_million = 100 * 3 + 50 * 15 + 10_000 * 0.3 + 2_000 * 3.75 + 3_000 * 6
    assert turn.result["total_cost_usd"] == pytest.approx(dollars_per_million / 1e6)


async def test_a_resumed_session_goes_on_counting_its_cost(place: dict[str, Any]) -> None:
    first = await bare_turn("one", **place)
    second = await bare_turn("two", **place | {"arguments": [*TOOLS, f"--resume={first.result['session_id']}"]})
    assert second.result["total_cost_usd"] == pytest.approx(2 * first.result["total_cost_usd"])
    assert second.result["usage"]["input_tokens"] == first.result["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "billing_error"), (401, "authentication_failed"), (429, "rate_limit"), (529, "server_error")],
)
async def test_a_failed_call_is_an_error_with_the_subtype_success(
    model: ModelEmulator, place: dict[str, Any], status: int, error: str
) -> None:
    model.fail("hello", status)
    turn = await bare_turn("hello", variables=QUICK, **place)
    result = turn.result
    assert (result["is_error"], result["subtype"], result["api_error_status"]) == (True, "success", status)
    assert [message["error"] for message in turn.messages if message["type"] == "assistant"] == [error]


async def test_the_number_of_retries_can_be_set(model: ModelEmulator, place: dict[str, Any]) -> None:
    model.fail("hello", 500)
    turn = await bare_turn("hello", variables=QUICK, **place)
    assert kinds(turn).count("api_retry") == 1
    assert len(model.requests) == 2


async def test_after_an_error_the_process_takes_the_next_message(model: ModelEmulator, place: dict[str, Any]) -> None:
    model.fail("hello", 500, times=2)
    async with BareCli(variables=QUICK, **place) as cli:
        assert (await cli.turn("hello")).result["is_error"]
        assert not (await cli.turn("again")).result["is_error"]


async def test_an_answer_that_breaks_off_is_asked_for_again(model: ModelEmulator, place: dict[str, Any]) -> None:
    model.cut("hello", "A long answer that nobody hears the end of.", after_events=4, times=1)
    turn = await bare_turn("hello", variables=QUICK, **place)
    assert turn.result["result"] == "You said: hello"
    assert len(model.requests) == 2


async def test_an_interrupted_turn_ends_with_a_result_and_the_process_lives(
    model: ModelEmulator, place: dict[str, Any]
) -> None:
    gate = model.hold("slow", "A long answer that takes its time.", after_events=4)
    async with BareCli(**place) as cli:
        turn = await cli.read_until(await cli.say("slow"), is_text)
        for message in await cli.control({"subtype": "interrupt"}):
            turn.note(message)
        await cli.finish(turn)
        await asyncio.to_thread(gate.wait_left)
        assert (await cli.turn("next")).result["subtype"] == "success"
    assert turn.result["terminal_reason"] == "aborted_streaming"
    assert (turn.result["is_error"], turn.result["subtype"]) == (True, "error_during_execution")


async def test_the_system_prompt_is_the_same_bytes_in_every_process(
    model: ModelEmulator, place: dict[str, Any]
) -> None:
    plain = {"CLAUDE_CODE_ATTRIBUTION_HEADER": "0"}
    for text in ("one thing", "quite another"):
        await bare_turn(text, variables=plain, system_prompt="You are Ada.", **place)
    one, other = model.requests
    assert one.json["system"] == other.json["system"]
    assert one.json["tools"] == other.json["tools"]
    assert one.system[-1]["text"] == "You are Ada."


async def test_a_resumed_session_keeps_its_first_system_prompt_unless_told_otherwise(
    model: ModelEmulator, place: dict[str, Any]
) -> None:
    first = await bare_turn("one", system_prompt="You are Ada.", **place)
    resume = [*TOOLS, f"--resume={first.result['session_id']}"]
    for arguments in (resume, [*resume, "--system-prompt-snapshot", "off"]):
        await bare_turn("two", system_prompt="You are Bob.", **place | {"arguments": arguments})
    assert [request.system[-1]["text"] for request in model.requests] == [
        "You are Ada.",
        "You are Ada.",
        "You are Bob.",
    ]


@pytest.fixture
def key_pipe() -> Iterator[int]:
    """The end to read of a pipe that holds a key and then ends."""
    reading, writing = os.pipe()
    os.write(writing, b"sk-by-descriptor")
    os.close(writing)
    yield reading
    os.close(reading)


async def test_a_key_given_by_descriptor_is_hidden_from_tools(
    model: ModelEmulator, place: dict[str, Any], key_pipe: int
) -> None:
    look = f"env; ls /proc/self/fd; cat /proc/$PPID/environ /proc/$PPID/fd/{key_pipe} <&{key_pipe}"
    model.call_tool("look", "Bash", {"command": look, "description": "look"}, then="done")
    model.call_tool(
        "env", "Bash", {"command": f"env; cat /proc/$PPID/fd/{key_pipe}", "description": "env"}, then="done"
    )
    allowed = place | {"arguments": [*TOOLS, "--allowedTools", "Bash"]}
    variables = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": str(key_pipe)}
    async with BareCli(variables=variables, pass_fds=[key_pipe], **allowed) as cli:
        assert os.read(key_pipe, 100) == b"", "it reads the key when it starts, before anything else runs"
        await cli.turn("look")
        await cli.turn("env")
    assert {request.headers["x-api-key"] for request in model.requests} == {"sk-by-descriptor"}
    assert f"{key_pipe}: Bad file descriptor" in str(model.requests[1].tool_results), "it hands the pipe down"
    said = str(model.requests[3].tool_results)
    assert "ANTHROPIC_BASE_URL" in said
    assert "sk-by-descriptor" not in said and "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR" not in said
    assert not [path for path in place["home"].rglob("*") if path.is_file() and b"sk-by-desc" in path.read_bytes()]


async def test_what_nobody_allowed_is_denied_and_reported(model: ModelEmulator, place: dict[str, Any]) -> None:
    model.call_tool("write", "Bash", {"command": "echo hi > out.txt", "description": "write"}, then="Could not.")
    turn = await bare_turn("write", **place)
    assert [denied["tool_name"] for denied in turn.result["permission_denials"]] == ["Bash"]
    assert not (place["cwd"] / "out.txt").exists()
