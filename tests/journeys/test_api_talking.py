"""A program talks to a bot over HTTP, on the running product: real web server, real worker, real CLI."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]

STREAMS = 40  # more than there are database connections
_ISSUE = (
    "from identities import actions, queries; from fleet.kernel.actors import Actor;"
    "print(actions.issue_access_token(person=queries.first_admin(), name='journey', by=Actor.system('test'))[0])"
)


class Program:
    """A program with a personal token."""

    def __init__(self, world: World) -> None:
        self.base = f"http://127.0.0.1:{world.product.port}"
        self.token = world.product.manage("shell", "--verbosity", "0", "-c", _ISSUE).split()[-1]

    def open(self, path: str, body: Any = None, **headers: str) -> HTTPResponse:
        request = urllib.request.Request(
            self.base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers},
        )
        return urllib.request.urlopen(request, timeout=120)

    def send(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        try:
            with self.open(path, body, **headers) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def say(self, text: str, *, wait: int = 0, **fields: str) -> tuple[int, dict[str, Any]]:
        """Say something in a conversation of its own."""
        body = {"identity": "ada", "text": text, "chat_id": uuid.uuid4().hex, **fields}
        return self.send(f"/message?wait={wait}" if wait else "/message", body)

    def follow(self, events_url: str, **headers: str) -> Iterator[dict[str, Any]]:
        """Yield events as an event source does: `event`, `id` and the data's fields."""
        with self.open(events_url, Accept="text/event-stream", **headers) as stream:
            fields: dict[str, str] = {}
            for line in stream:
                if line.strip():
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    yield {"event": fields["event"], "id": fields.get("id", ""), **json.loads(fields["data"])}
                    fields = {}


@pytest.fixture
def program(world: World) -> Program:
    return Program(world)


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["payload"]["text"] for event in events if event["event"] == "text")


def test_the_reply_comes_in_the_same_answer_with_what_it_cost(world: World, program: Program) -> None:
    world.model.reply("capital", "Paris.")

    status, turn = program.say("What is the capital of France?", wait=90)

    assert (status, turn["status"], turn["text"]) == (200, "replied", "Paris.")
    assert turn["receipt"]["provider"] == "claude"
    assert turn["receipt"]["cost_nano_usd"] > 0
    assert turn["receipt"]["tokens"]["output"] > 0


def test_the_stream_tells_the_whole_answer_and_goes_on_where_it_was_cut(world: World, program: Program) -> None:
    world.model.reply("capital", "Paris, on the river Seine.")
    _, accepted = program.say("What is the capital of France?")

    whole = list(program.follow(accepted["events_url"]))
    numbered = [event for event in whole if event["id"]]
    seen = numbered[0]
    rest = list(program.follow(accepted["events_url"], **{"Last-Event-ID": seen["id"]}))

    assert text_of(whole) == "Paris, on the river Seine."
    assert whole[-1]["event"] == "end" and whole[-1]["text"] == "Paris, on the river Seine."
    assert [event["id"] for event in rest if event["id"]] == [event["id"] for event in numbered[1:]]


def test_a_repeated_request_is_answered_once(world: World, program: Program) -> None:
    body = {"identity": "ada", "text": "Hello", "chat_id": uuid.uuid4().hex}
    key = {"Idempotency-Key": uuid.uuid4().hex}

    first = program.send("/api/v1/messages?wait=90", body, **key)[1]
    again = program.send("/api/v1/messages?wait=90", body, **key)[1]
    other = program.send("/api/v1/messages", {**body, "text": "Bye"}, **key)

    assert again["turn_id"] == first["turn_id"]
    assert len(world.model.requests) == 1
    assert other[0] == 409


def test_many_watchers_of_a_silent_turn_keep_nobody_from_the_database(world: World, program: Program) -> None:
    world.model.silence("", 120)
    _, accepted = program.say("Think for a long time")
    with contextlib.ExitStack() as streams:
        for _ in range(STREAMS):
            streams.enter_context(program.open(accepted["events_url"]))

        assert program.send("/readyz")[1]["parts"]["postgres"]["state"] == "up"
        assert program.send(accepted["turn_url"])[0] == 200

    status, _ = program.send(f"{accepted['turn_url']}stop", {"reason": "seen enough"})
    assert status == 202
    assert eventually(lambda: program.send(accepted["turn_url"])[1]["ended"])
    assert program.send(accepted["turn_url"])[1]["status"] == "stopped"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"identity": "nobody", "text": "Hello"}, 404, "unknown_bot"),
        ({"identity": "ada", "text": ""}, 400, "empty"),
        ({"identity": "ada", "text": "x" * 1_000_000}, 413, "too_long"),
        (["no", "message"], 400, "invalid"),
    ],
    ids=["unknown bot", "empty", "1 MB", "no object"],
)
def test_what_cannot_be_answered_is_explained(program: Program, body: Any, status: int, code: str) -> None:
    answer = program.send("/message", body)

    assert (answer[0], answer[1]["code"]) == (status, code)
    assert answer[1]["what"]
