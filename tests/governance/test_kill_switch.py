"""The kill switch: an order reaches exactly its scope, is proven line by line, and ends only by a reasoned lift."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError

from fleet.kernel import clock, events
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, Refused, StateConflict
from fleet.kernel.models import JournalEntry
from governance import actions, policies, queries
from governance.events import KILL_ORDERED, KILL_REPEATED
from governance.models import KillEpoch, KillOrder, StopLine
from governance.states import KillMode, KillScope
from tests.factories.governance import KillEpochFactory, KillOrderFactory, StopLineFactory
from tests.identities.races import race

EVA = Actor("person", "7", "eva")
WORKER = Actor.system("worker")


def stop(scope: str = "fleet", scope_id: str = "", mode: str = "stop", reason: str = "a drill") -> KillOrder:
    """Give an order."""
    return actions.stop(scope=KillScope(scope), scope_id=scope_id, mode=KillMode(mode), reason=reason, by=EVA)


def quiet(order: KillOrder, kind: str, subject: str, *, killed: bool = True) -> StopLine:
    """Close a line."""
    return actions.record_quiet(order=order, kind=kind, subject=subject, by=WORKER, killed=killed, sentence="gone")


def refused(**work: Any) -> str | None:
    """Why this work may not start, or None when it may."""
    try:
        policies.check_not_killed(**{"identity_slug": "ada", "conversation_id": 12, "execution_id": 34, **work})
    except Refused as refusal:
        assert refusal.code == "killed"
        return refusal.sentence
    return None


@pytest.mark.django_db
class TestScope:
    @pytest.mark.parametrize(
        ("scope", "scope_id", "reached"),
        [
            ("fleet", "", True),
            ("identity", "ada", True),
            ("identity", "bob", False),
            ("conversation", "12", True),
            ("conversation", "13", False),
            ("execution", "34", True),
            ("execution", "12", False),
        ],
    )
    @pytest.mark.parametrize("mode", KillMode.values)
    def test_an_order_reaches_what_it_names_and_nothing_else(self, scope: str, scope_id: str, reached: bool, mode: str):
        stop(scope, scope_id, mode)
        assert (refused() is not None) is reached

    def test_work_that_has_no_conversation_yet_is_reached_by_fleet_and_bot_only(self):
        stop("conversation", "12")
        stop("execution", "34")
        assert refused(conversation_id=None, execution_id=None) is None

        stop("identity", "ada")
        assert refused(conversation_id=None, execution_id=None)

    def test_a_number_is_not_mistaken_for_another_kind_of_thing(self):
        stop("execution", "12")
        assert refused(conversation_id=12, execution_id=None) is None

    def test_the_refusal_names_who_stopped_what_and_why(self):
        stop("identity", "ada", reason="she talks too much")

        sentence = refused()

        assert "eva stopped the bot ada: she talks too much." in sentence
        assert "when the order has been lifted" in sentence

    @pytest.mark.parametrize(("scope", "scope_id"), [("fleet", "ada"), ("identity", ""), ("execution", "")])
    def test_an_order_that_does_not_say_what_it_stops_is_not_given(self, scope: str, scope_id: str):
        with pytest.raises(Invalid, match="does not say what it stops"):
            stop(scope, scope_id)
        with pytest.raises(IntegrityError, match="kill_order_names_what_it_stops"):
            KillOrderFactory(scope=scope, scope_id=scope_id)

    @pytest.mark.parametrize("reason", ["", " \n "])
    def test_an_order_without_a_reason_is_not_given(self, reason: str):
        with pytest.raises(Invalid, match="needs a reason"):
            stop(reason=reason)
        assert queries.kill_epoch() == 0

    def test_a_long_reason_is_cut_and_does_not_stop_the_stop(self):
        assert len(stop(reason="x" * 5000).reason) == 400


@pytest.mark.django_db
class TestModes:
    def test_a_drain_lets_running_work_finish_and_starts_nothing_new(self):
        stop(mode="drain")
        assert refused(running=True) is None
        assert "eva drained the whole fleet" in refused()

    def test_a_stop_ends_running_work_too(self):
        stop(mode="stop")
        assert refused(running=True)
        assert refused()


@pytest.mark.django_db
class TestEpoch:
    def test_it_starts_at_nothing_and_rises_with_every_order(self):
        assert policies.check_not_killed(identity_slug="ada") == 0

        first = stop("identity", "bob")
        second = stop("identity", "cleo")

        assert (first.epoch, second.epoch) == (1, 2)
        assert policies.check_not_killed(identity_slug="ada") == queries.kill_epoch() == 2

    def test_lifting_does_not_lower_it(self):
        order = stop()
        actions.lift(order=order, reason="over", by=EVA)
        assert policies.check_not_killed(identity_slug="ada") == order.epoch

    @pytest.mark.parametrize("lie", [0, 3])
    def test_the_database_lets_it_only_rise(self, lie: int):
        KillEpochFactory(value=3)
        with pytest.raises(DatabaseError, match="Cannot update"):
            KillEpoch.objects.update(value=lie)

    def test_the_database_keeps_it(self):
        KillEpochFactory(value=3)
        with pytest.raises(DatabaseError, match="Cannot delete"):
            KillEpoch.objects.all()._raw_delete("default")

    def test_there_is_only_one(self):
        with pytest.raises(IntegrityError, match="one_kill_epoch"):
            KillEpoch.objects.create(id=2)

    def test_what_was_admitted_before_an_order_does_not_start_by_itself_once_it_is_lifted(self):
        admitted = policies.check_not_killed(identity_slug="ada")
        actions.lift(order=stop("identity", "ada"), reason="over", by=EVA)

        assert "was lifted since" in refused(since_epoch=admitted)
        assert refused(since_epoch=queries.kill_epoch()) is None
        assert refused() is None

    def test_an_order_over_something_else_does_not_touch_it(self):
        admitted = policies.check_not_killed(identity_slug="ada")
        stop("identity", "bob")
        assert refused(since_epoch=admitted) is None

    @pytest.mark.parametrize("orders_in_force", [0, 1, 40])
    def test_the_check_is_one_query_however_many_orders_there_are(
        self, orders_in_force: int, django_assert_num_queries: Any
    ):
        for number in range(orders_in_force):
            stop("identity", f"bot-{number}")

        with django_assert_num_queries(1):
            policies.check_not_killed(identity_slug="ada", conversation_id=1, execution_id=1, since_epoch=0)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_every_one_of_many_orders_at_once_has_its_own_epoch(self):
        results = race(*[lambda number=number: stop("identity", f"bot-{number}").epoch for number in range(8)])

        assert sorted(results) == list(range(1, 9))
        assert queries.kill_epoch() == 8

    def test_many_who_press_the_same_button_give_one_order(self):
        results = race(*[stop] * 6)

        assert len({order.pk for order in results}) == 1
        assert KillOrder.objects.count() == 1

    def test_an_admission_that_passed_the_check_carries_an_older_epoch_than_the_order(self):
        admitted = policies.check_not_killed(identity_slug="ada")
        order = stop()

        assert admitted < order.epoch == queries.kill_epoch()

    def test_lines_closed_at_the_same_moment_make_the_order_quiet_once(self, alive: Any):
        alive(process=[str(number) for number in range(8)])
        order = stop()

        race(*[lambda number=number: quiet(order, "process", str(number)) for number in range(8)])

        assert queries.get_order(order.pk).state == "quiet"
        assert JournalEntry.objects.filter(event="governance.kill.quiet").count() == 1

    def test_two_who_lift_the_same_order_lift_it_once(self):
        order = stop()

        results = race(*[lambda: actions.lift(order=order, reason="over", by=EVA)] * 2)

        assert sorted(isinstance(result, StateConflict) for result in results) == [False, True]


@pytest.mark.django_db
class TestOrders:
    def test_an_order_is_told_to_whoever_can_stop_things_in_its_own_transaction(self, monkeypatch: pytest.MonkeyPatch):
        heard: list[events.Event] = []
        monkeypatch.setitem(events._handlers, KILL_ORDERED, [heard.append])

        order = stop("identity", "ada")

        (event,) = heard
        assert (event.subject_kind, event.subject_id, event.by) == ("kill_order", str(order.pk), EVA)
        assert event.details == {
            "reason": "a drill",
            "scope": "identity",
            "scope_id": "ada",
            "mode": "stop",
            "epoch": order.epoch,
        }

    def test_the_same_order_again_is_the_same_order_told_once_more(self, monkeypatch: pytest.MonkeyPatch):
        heard: list[str] = []
        monkeypatch.setitem(events._handlers, KILL_REPEATED, [lambda event: heard.append(event.subject_id)])
        first = stop(reason="first")

        again = stop(reason="second")

        assert (again, again.reason, heard) == (first, "first", [str(first.pk)])

    def test_a_stop_can_follow_a_drain(self):
        drain = stop(mode="drain")
        assert stop(mode="stop") != drain
        assert len(queries.active_orders()) == 2

    def test_after_a_lift_the_same_order_is_a_new_one(self):
        first = stop()
        actions.lift(order=first, reason="over", by=EVA)
        assert stop() != first

    def test_a_lift_needs_a_reason_and_keeps_it(self):
        order = stop()

        with pytest.raises(Invalid, match="needs a reason"):
            actions.lift(order=order, reason=" ", by=EVA)
        lifted = actions.lift(order=order, reason="false alarm", by=EVA)

        assert (lifted.state, lifted.lifted_by, lifted.lift_reason) == ("lifted", "eva", "false alarm")
        assert lifted.lifted_at is not None
        assert queries.active_orders() == []
        assert refused() is None

    def test_an_order_can_be_lifted_before_everything_is_quiet(self, alive: Any):
        alive(process=["1"])
        order = stop()

        actions.lift(order=order, reason="over", by=EVA)

        quiet(order, "process", "1")
        assert queries.get_order(order.pk).state == "lifted"
        assert queries.receipt(queries.get_order(order.pk)).alive == ()

    def test_the_list_of_all_orders_is_paged_newest_first(self):
        first, second, third = (stop("identity", slug) for slug in ("a", "b", "c"))
        assert list(queries.orders(limit=2)) == [third, second]
        assert list(queries.orders(before=second.pk)) == [first]


@pytest.mark.django_db
class TestReceipt:
    def test_an_order_freezes_the_list_of_what_was_alive(self, alive: Any):
        alive(process=["1", "2"], queue=["7"], channel=["telegram:ada"])
        order = stop()
        alive(process=["99"])

        lines = {(line.kind, line.subject) for line in queries.open_lines(order)}

        assert lines == {("process", "1"), ("process", "2"), ("queue", "7"), ("channel", "telegram:ada")}
        assert order.state == "stopping"

    def test_an_order_over_nothing_is_quiet_at_once(self):
        order = stop()
        assert order.state == "quiet"
        assert queries.receipt(order).milliseconds == 0

    def test_it_is_quiet_when_the_last_line_is_and_not_before(self, alive: Any):
        alive(process=["1"], queue=["7"])
        order = stop()

        quiet(order, "process", "1")
        assert queries.get_order(order.pk).state == "stopping"
        quiet(order, "queue", "7", killed=False)

        order = queries.get_order(order.pk)
        assert order.state == "quiet"
        assert order.quiet_at >= order.ordered_at

    def test_each_line_says_how_long_it_took_and_how_it_ended(self, alive: Any):
        alive(process=["1"], queue=["7"])
        order = stop()
        quiet(order, "process", "1")
        quiet(order, "queue", "7", killed=False)

        receipt = queries.receipt(order)

        process, queued = receipt.lines
        assert (process.kind, process.subject, process.killed, process.sentence) == ("process", "1", True, "gone")
        assert (queued.kind, queued.killed) == ("queue", False)
        assert 0 <= process.milliseconds <= queued.milliseconds == receipt.milliseconds

    def test_the_time_is_the_database_s_not_this_machine_s(self, alive: Any):
        alive(process=["1"])
        with time_machine.travel(dt.datetime(2001, 1, 1, tzinfo=dt.UTC)):
            order = stop()
            line = quiet(order, "process", "1")
        assert line.quiet_at.year > 2001

    def test_closing_a_line_again_changes_nothing(self, alive: Any):
        alive(process=["1"])
        order = stop()
        first = quiet(order, "process", "1")

        again = quiet(order, "process", "1", killed=False)

        assert (again.quiet_at, again.killed) == (first.quiet_at, True)
        assert JournalEntry.objects.filter(event="governance.kill.line_quiet").count() == 1

    def test_what_came_up_after_the_order_gets_a_line_of_its_own(self, alive: Any):
        alive(process=["1"])
        order = stop()

        assert quiet(order, "process", "2").expected is False
        assert queries.get_order(order.pk).state == "stopping"
        assert quiet(order, "process", "1").expected is True

    def test_what_is_not_quiet_after_ten_seconds_is_shown_as_still_alive(self, alive: Any):
        alive(process=["1", "2"])
        order = stop()
        quiet(order, "process", "1")
        assert not queries.receipt(order).overdue

        with time_machine.travel(clock.now() + dt.timedelta(seconds=11), tick=False):
            receipt = queries.receipt(order)

        assert receipt.overdue
        assert [line.subject for line in receipt.alive] == ["2"]
        assert receipt.milliseconds is None
        assert queries.get_order(order.pk).state == "stopping"


@pytest.mark.django_db
class TestTheDatabase:
    def test_a_closed_line_stays_closed(self, alive: Any):
        alive(process=["1"])
        quiet(stop(), "process", "1")
        with pytest.raises(DatabaseError, match="Cannot update"):
            StopLine.objects.update(killed=False)

    def test_a_line_is_never_removed(self):
        line = StopLineFactory()
        with pytest.raises(DatabaseError, match="Cannot delete"):
            line.delete()

    def test_one_subject_has_one_line(self):
        line = StopLineFactory()
        with pytest.raises(IntegrityError, match="one_line_per_subject"):
            StopLineFactory(order=line.order, subject=line.subject)

    @pytest.mark.parametrize("half", [{"killed": True}, {"quiet_at": "2026-01-01T00:00Z"}])
    def test_a_line_is_closed_whole_or_not_at_all(self, half: dict[str, Any]):
        with pytest.raises(IntegrityError, match="stop_line_closed_whole"):
            StopLineFactory(**half)

    @pytest.mark.parametrize(
        ("fields", "constraint"),
        [
            ({"reason": ""}, "kill_order_has_a_reason"),
            ({"state": "quiet"}, "kill_order_quiet_at"),
            ({"state": "lifted", "lifted_by": "eva", "lift_reason": "x"}, "kill_order_lifted_with_a_reason"),
            ({"state": "lifted", "lifted_at": "2026-01-01T00:00Z"}, "kill_order_lifted_with_a_reason"),
        ],
    )
    def test_an_order_is_never_half_told(self, fields: dict[str, Any], constraint: str):
        with pytest.raises(IntegrityError, match=constraint):
            KillOrderFactory(**fields)

    def test_one_order_in_force_per_scope_and_mode(self):
        KillOrderFactory()
        with pytest.raises(IntegrityError, match="one_kill_order_in_force"):
            KillOrderFactory()
