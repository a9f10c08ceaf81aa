"""Lanes: one active turn per conversation; a message starts a turn, joins the one whose gate is closed, or waits."""

import threading
import time

import pytest
from django.db import IntegrityError, connection, transaction

from conversations import actions
from conversations.models import Conversation, Delivery, InboundMessage, Turn
from conversations.policies import QUEUE_CAP
from execution.queries import ordered_to_die
from execution.states import ExecutionState, OutcomeClass
from fleet.kernel.actors import Actor
from governance import actions as kill_switch
from governance.queries import open_lines
from governance.states import KillMode, KillScope
from identities.models import ChatAccount
from tests.conversations.scenes import GATEWAY, answer, claimed, end, message, operator, running, say, turn_of


def test_what_arrives_before_the_spend_gate_opens_joins_the_turn(eva):
    first = say("Hello")
    second = say("And one more thing")
    assert second.turn_id == first.turn_id
    prompt = turn_of(first).execution.prompt
    assert [text["text"] for text in prompt] == ["Hello", "And one more thing"]


def test_a_message_still_joins_while_the_process_waits_at_the_gate(eva):
    turn = turn_of(say("Hello"))
    claimed(turn)
    assert say("And one more thing").turn_id == turn.pk


def test_what_arrives_after_the_gate_opened_waits_and_is_told_so(eva):
    turn = turn_of(say("Hello"))
    running(turn)
    later = turn_of(say("And one more thing"))
    assert (later.pk != turn.pk, later.state) == (True, "queued")
    assert "number 1" in Delivery.objects.get(kind="progress").text


def test_collect_makes_one_next_turn_of_all_that_waits(eva):
    running(turn_of(say("Hello")))
    waiting = [say(f"Message {number}") for number in range(3)]
    assert len({intake.turn_id for intake in waiting}) == 1
    assert Delivery.objects.filter(kind="progress").count() == 1


def test_followup_makes_a_turn_of_each(eva):
    running(turn_of(say("Hello")))
    Conversation.objects.update(busy_mode="followup")
    waiting = [say(f"Message {number}") for number in range(3)]
    assert len({intake.turn_id for intake in waiting}) == 3


def test_another_persons_message_never_joins_my_turn(eva):
    other = operator("otto")
    ChatAccount.objects.create(platform="telegram", external_id="502", person=other)
    mine = say("Hello", chat_id="-100")
    theirs = say("Hello from Otto", chat_id="-100", sender_id="502")
    assert theirs.turn_id != mine.turn_id
    assert turn_of(theirs).person == other


def test_the_next_turn_starts_when_the_lane_is_free_with_all_its_messages_in_order(eva):
    first = turn_of(say("Hello"))
    execution = running(first)
    second = turn_of(say("Two"))
    say("Three")
    end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")
    assert actions.advance(first.conversation_id) == second
    second.refresh_from_db()
    assert [text["text"] for text in second.execution.prompt] == ["Two", "Three"]


def test_advance_does_nothing_while_the_lane_is_taken_or_empty(eva):
    turn = turn_of(say("Hello"))
    assert actions.advance(turn.conversation_id) is None
    answer(turn)
    assert actions.advance(turn.conversation_id) is None


def test_the_sweep_starts_a_turn_whose_nudge_was_lost(eva):
    first = turn_of(say("Hello"))
    execution = running(first)
    second = turn_of(say("Two"))
    end(execution, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")
    actions.sweep()
    second.refresh_from_db()
    assert second.state == "admitted"


def test_a_full_queue_refuses_and_says_so(eva):
    running(turn_of(say("Hello")))
    for number in range(QUEUE_CAP):
        assert say(f"Message {number}").kind == "turn"
    refused = say("One too many")
    assert (refused.kind, refused.refusal["code"]) == ("refused", "queue_full")


def test_the_database_allows_one_active_turn_per_conversation(eva):
    turn = turn_of(say("Hello"))
    twin = Turn.objects.create(
        conversation=turn.conversation, identity=turn.identity, person=eva, route=turn.route, state="queued"
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        Turn.objects.filter(pk=twin.pk).update(state="admitted")


def test_stop_clears_the_queue_first_and_then_stops_the_active_turn(eva):
    active = turn_of(say("Hello"))
    execution = running(active)
    waiting = turn_of(say("Two"))
    assert "1 waiting" in say("/stop").answer
    waiting.refresh_from_db()
    execution.refresh_from_db()
    assert waiting.state == "stopped"
    assert execution.stop_requested_at is not None


def test_the_word_stop_stops_while_the_bot_is_busy(eva):
    execution = running(turn_of(say("Hello")))
    assert say("Stop!").kind == "command"
    execution.refresh_from_db()
    assert execution.stop_requested_at is not None


def test_the_word_stop_is_an_ordinary_message_to_an_idle_bot(eva):
    assert say("stop").kind == "turn"


def test_stopping_a_turn_that_no_worker_has_yet_ends_it_at_once(eva):
    turn = turn_of(say("Hello"))
    actions.stop_turn(turn_id=turn.pk, by=Actor.person(eva), reason="changed my mind")
    turn.refresh_from_db()
    assert (turn.state, turn.execution.state) == ("stopped", "stopped")


def test_a_kill_order_for_a_conversation_names_what_runs_there_and_its_worker_is_told(eva):
    here, elsewhere = (running(turn_of(say("Hello", chat_id=chat))) for chat in ("501", "-502"))
    place = here.turn.conversation_id
    order = kill_switch.stop(
        scope=KillScope.CONVERSATION, scope_id=str(place), mode=KillMode.STOP, reason="fire drill", by=GATEWAY
    )
    assert list(open_lines(order).values_list("kind", "subject")) == [("process", str(here.pk))]
    assert list(ordered_to_die([here, elsewhere])) == [here.pk]


def test_stopping_twice_is_harmless(eva):
    turn = turn_of(say("Hello"))
    for _ in range(2):
        assert actions.stop_turn(turn_id=turn.pk, by=Actor.person(eva), reason="enough") == "stopped"


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return cursor.fetchone()[0]


@pytest.mark.django_db(transaction=True)
def test_a_turn_that_is_admitted_at_that_very_moment_is_stopped_all_the_same(eva):
    busy = running(turn_of(say("Hello")))
    waiting = turn_of(say("And one more thing"))
    end(busy, ExecutionState.SUCCEEDED, OutcomeClass.OK, answer="Good day.")
    seen: list[str] = []

    def stop() -> None:
        try:
            seen.append(actions.stop_turn(turn_id=waiting.pk, by=Actor.person(eva), reason="enough"))
        finally:
            connection.close()

    stopping = threading.Thread(target=stop)
    with transaction.atomic():
        assert actions.advance(waiting.conversation_id).state == "admitted"
        stopping.start()
        deadline = time.monotonic() + 20
        while not somebody_waits_for_a_lock() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == [], "it was decided before the turn was admitted"
    stopping.join(20)
    waiting.refresh_from_db()
    assert seen == [waiting.state] == ["stopped"]
    assert waiting.execution.state == "stopped"


@pytest.mark.django_db(transaction=True)
def test_twenty_messages_at_once_lose_none_and_start_one_turn(eva):
    said = [message(f"Message {number}") for number in range(QUEUE_CAP)]
    rows = [actions.receive(one, by=GATEWAY).inbound_id for one in said]

    def process(inbound_id: int) -> None:
        try:
            actions.process(inbound_id)
        finally:
            connection.close()

    threads = [threading.Thread(target=process, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert InboundMessage.objects.filter(state="taken").count() == QUEUE_CAP
    turn = Turn.objects.get(state="admitted")
    assert Turn.objects.count() == 1
    assert {text["text"] for text in turn.execution.prompt} == {one.text for one in said}
