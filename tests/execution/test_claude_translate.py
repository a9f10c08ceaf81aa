"""What the CLI says becomes one answer, also when the connection to the model was cut in the middle of it."""

from __future__ import annotations

from typing import Any

from claude_agent_sdk import AssistantMessage, StreamEvent, TextBlock

from execution.ports import TextDelta
from execution.providers.claude.translate import Translator


def hear(translator: Translator, *messages: Any) -> str:
    """Let the translator take these, and return what was to be read live."""
    events = [event for message in messages for event in translator.take(message)]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def stream(kind: str, **fields: Any) -> StreamEvent:
    return StreamEvent(uuid="u", session_id="s", event={"type": kind, **fields})


def begin(number: int) -> StreamEvent:
    return stream("message_start", message={"id": f"m{number}", "model": "claude", "usage": {}})


def block(text: str) -> list[Any]:
    delta = {"type": "text_delta", "text": text}
    whole = AssistantMessage(content=[TextBlock(text)], model="claude")
    return [stream("content_block_start"), stream("content_block_delta", delta=delta), whole]


STOP = stream("message_stop")


def test_the_messages_of_a_turn_are_one_answer() -> None:
    translator = Translator()
    live = hear(translator, begin(1), *block("I look."), STOP, begin(2), *block("Found."), STOP)
    assert live == translator.said == "I look.\n\nFound."


def test_what_a_cut_connection_brings_again_is_said_once() -> None:
    translator = Translator()
    hear(translator, begin(1), *block("I look."), STOP, begin(2), *block("First."), *block("Second.")[:2])
    hear(translator, begin(3), *block("First."), *block("Second."), STOP)
    assert translator.said == "I look.\n\nFirst.\n\nSecond."
