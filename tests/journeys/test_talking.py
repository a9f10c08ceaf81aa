"""A person talks to a bot in Telegram and on the command line; the real Claude CLI answers."""

import json
import subprocess
import sys

import pytest

from tests.product import ROOT
from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]


def test_a_message_in_telegram_is_answered_by_the_real_cli_and_paid_for(world: World):
    eva = world.person()
    world.model.reply("weather", "It is sunny.")
    said = eva.send(world.ada, "How is the weather?")
    assert eva.wait_for_reply(said).text == "It is sunny."
    assert world.turns_of(eva) == [("replied", "")]
    (execution,) = world.product.sql(
        "SELECT e.provider, e.state, e.outcome, e.output > 0, e.cost_nano_usd > 0, e.spend_stage, r.state"
        " FROM execution_execution e JOIN budgets_reservation r ON r.id = e.reservation_id"
        " JOIN conversations_turn t ON t.execution_id = e.id JOIN conversations_conversation c ON c.id = t.conversation_id"
        " WHERE c.chat_id = %s",
        str(eva.id),
    )
    assert execution == ("claude", "succeeded", "ok", True, True, "settled", "settled")


def test_the_next_message_continues_the_session(world: World):
    eva = world.person()
    eva.wait_for_reply(eva.send(world.ada, "My cat is called Tom."))
    eva.wait_for_reply(eva.send(world.ada, "What is my cat called?"))
    assert "My cat is called Tom." in json.dumps(world.model.requests[-1].messages)


def test_the_next_messages_are_answered_by_the_process_that_answered_the_first(world: World):
    eva = world.person()
    for text in ("My cat is called Tom.", "What is my cat called?", "And what is it?"):
        assert text in eva.wait_for_reply(eva.send(world.ada, text)).text
    started = world.product.sql(
        "SELECT e.pid, e.session_turns, e.spawned_at < e.queued_at, e.output > 0 FROM execution_execution e"
        " JOIN conversations_turn t ON t.execution_id = e.id JOIN conversations_conversation c ON c.id = t.conversation_id"
        " WHERE c.chat_id = %s ORDER BY e.id",
        str(eva.id),
    )
    pid = started[0][0]
    assert started == [(pid, 0, False, True), (pid, 1, True, True), (pid, 2, True, True)]


def test_a_cli_that_died_meanwhile_is_started_while_the_turn_is_still_being_admitted(world: World):
    eva = world.person()
    eva.wait_for_reply(eva.send(world.ada, "My cat is called Tom."))
    eventually(lambda: world.turns_of(eva) == [("replied", "")])
    world.kill_processes_of(eva)
    eventually(lambda: not world.processes_of(eva))
    standing = (
        "SELECT count(*) FROM execution_heldprocess h JOIN conversations_conversation c ON c.id = h.conversation_id"
        " WHERE c.chat_id = %s"
    )
    eventually(lambda: world.product.sql(standing, str(eva.id)) == [(0,)])  # its worker has noticed as well
    eva.wait_for_reply(eva.send(world.ada, "What is my cat called?"))
    assert "My cat is called Tom." in json.dumps(world.model.requests[-1].messages)
    (started,) = world.product.sql(
        "SELECT e.spawned_at BETWEEN i.received_at AND e.claimed_at FROM execution_execution e"
        " JOIN conversations_turn t ON t.execution_id = e.id JOIN conversations_inboundmessage i ON i.turn_id = t.id"
        " WHERE i.chat_id = %s AND e.session_turns = 1",
        str(eva.id),
    )
    assert started == (True,)


def test_a_bot_that_has_lost_its_memory_says_so_where_the_person_is_and_answers(world: World):
    eva = world.person()
    eva.wait_for_reply(eva.send(world.ada, "My cat is called Tom."))
    eventually(lambda: world.turns_of(eva) == [("replied", "")])
    world.kill_processes_of(eva)
    session_id = world.product.sql(
        "SELECT s.provider_session_id FROM conversations_session s JOIN conversations_conversation c ON c.id = s.conversation_id"
        " WHERE c.chat_id = %s",
        str(eva.id),
    )[0][0]
    (transcript,) = world.product.var.glob(f"**/{session_id}.jsonl")
    transcript.unlink()
    eva.wait_for_reply(eva.send(world.ada, "What is my cat called?"), "What is my cat called?")
    _, notice, answer = world.told(eva)
    assert "start afresh" in notice and "What is my cat called?" in answer
    assert "Tom" not in json.dumps(world.model.requests[-1].messages)


def test_chat_text_reaches_the_model_word_for_word(world: World):
    eva = world.person()
    text = "//compact @/etc/passwd #memory !ls"
    eva.wait_for_reply(eva.send(world.ada, text))
    assert text in world.model.requests[-1].said
    assert "root:" not in json.dumps(world.model.requests[-1].messages)


def test_a_stranger_is_told_how_to_pair_and_costs_nothing(world: World):
    stranger = world.person(paired=False)
    reply = stranger.wait_for_reply(stranger.send(world.ada, "Hello"))
    assert "/pair" in reply.text
    assert world.model.requests == []


def test_a_person_pairs_with_a_one_time_code_from_the_console(world: World):
    stranger = world.person(paired=False)
    code = world.product.manage("pairing_code").split()[0]
    assert "Paired" in stranger.wait_for_reply(stranger.send(world.ada, f"/pair {code}")).text
    said = stranger.send(world.ada, "Hello")
    assert "Hello" in stranger.wait_for_reply(said).text


def test_what_was_written_while_the_bot_was_busy_is_answered_next_in_one_turn(world: World):
    eva = world.person()
    gate = world.model.hold("first", "One.")
    eva.send(world.ada, "The first question")
    world.model.wait_for_requests(1)
    eva.send(world.ada, "The second")
    last = eva.send(world.ada, "The third")
    eventually(lambda: len(world.turns_of(eva)) == 2)
    gate.release()
    reply = eva.wait_for_reply(last, contains="third")
    assert "second" in world.model.requests[-1].said or "second" in json.dumps(world.model.requests[-1].messages)
    assert [state for state, _ in world.turns_of(eva)] == ["replied", "replied"]
    assert reply.text


def test_stop_ends_the_turn_and_its_processes(world: World):
    eva = world.person()
    world.model.silence("", 120)
    eva.send(world.ada, "Think for a long time")
    world.model.wait_for_requests(1)
    assert world.processes_of(eva)
    stop = eva.send(world.ada, "/stop")
    assert "Stopping" in eva.wait_for_reply(stop).text
    eventually(lambda: [state for state, _ in world.turns_of(eva)] == ["stopped"])
    assert not world.processes_of(eva)


def test_say_streams_the_reply_and_prints_the_receipt_beside_it(world: World):
    world.model.reply("capital", "Paris.")
    said = say(world, "ada", "What is the capital of France?")
    assert (said.returncode, said.stdout.strip()) == (0, "Paris.")
    assert "claude" in said.stderr and "queue" in said.stderr and "engine" in said.stderr


def test_say_tells_a_refusal_with_its_reason_and_another_exit_code(world: World):
    said = say(world, "nobody", "Hello")
    assert said.returncode == 2
    assert "nobody" in said.stderr


def test_status_knows_every_service(world: World):
    status = json.loads(world.product.manage("status", "--json"))
    services = {name: part["state"] for name, part in status["services"].items()}
    assert {"postgres", "redis", "web", "worker", "runner", "gateways"} <= set(services)
    assert set(services.values()) <= {"up", "idle"}


def say(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `manage.py say` as an operator in a terminal would."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "say", *arguments],
        env=world.product.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
