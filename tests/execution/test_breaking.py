"""The breaker of a login under races, lost workers and any order of ends."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from execution import actions
from execution.actions import Ending
from execution.models import Breaker, Execution
from execution.states import EXECUTION, Cause, ExecutionState, OutcomeClass
from fleet.kernel import clock
from tests.factories import execution as made
from tests.identities.races import race

LOGIN = {"login": "key-1"}
LATER = dt.timedelta(hours=2)


def ended(execution: Execution, cause: Any = Cause.USAGE_LIMIT, **fields: Any) -> Execution:
    """A worker ends an execution it owns, for this cause; for none, with an answer."""
    state = ExecutionState.FAILED if cause else ExecutionState.SUCCEEDED
    outcome = OutcomeClass.ERROR if cause else OutcomeClass.OK
    return actions.finish(execution=execution, ending=Ending(state, outcome, cause=cause, **fields), by=made.BY)


def probing() -> tuple[Execution, Breaker]:
    """A login is half open: an execution that a worker runs tries it."""
    ended(made.running(made.queued(**LOGIN)))
    Breaker.objects.update(until=clock.now())
    breaker = Breaker.objects.get()
    assert actions.probe(breaker_id=breaker.pk, by=made.BY)
    return made.running(made.queued(**LOGIN, is_probe=True)), breaker


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_of_many_at_once_exactly_one_gets_the_try(self) -> None:
        ended(made.running(made.queued(**LOGIN)))
        Breaker.objects.update(until=clock.now())
        breaker = Breaker.objects.get()
        got = race(*[lambda: actions.probe(breaker_id=breaker.pk, by=made.BY)] * 6)
        assert sorted(got) == [False] * 5 + [True]

    def test_every_one_of_the_ends_that_come_at_once_is_counted(self) -> None:
        rows = [made.running(made.queued(**LOGIN)) for _ in range(2)]
        race(*[lambda row=row: ended(row, Cause.OVERLOADED) for row in rows])
        assert (Breaker.objects.get().failures, Breaker.objects.get().state) == (2, "closed")


def test_a_try_whose_worker_is_lost_leaves_the_login_to_the_next() -> None:
    row, breaker = probing()
    Execution.objects.filter(pk=row.pk).update(lease_until=clock.db_now(-dt.timedelta(seconds=1)))
    actions.sweep()
    row.refresh_from_db()
    breaker.refresh_from_db()
    assert (row.state, breaker.state) == (ExecutionState.LOST, "open")
    assert breaker.until <= clock.now()


def test_a_try_that_is_stopped_before_it_began_leaves_the_login_to_the_next() -> None:
    ended(made.running(made.queued(**LOGIN)))
    Breaker.objects.update(until=clock.now())
    breaker = Breaker.objects.get()
    actions.probe(breaker_id=breaker.pk, by=made.BY)
    actions.request_stop(execution_id=made.queued(**LOGIN, is_probe=True).pk, reason="enough", by=made.BY)
    breaker.refresh_from_db()
    assert breaker.state == "open"


def test_a_person_may_close_it_while_it_is_tried_and_the_try_changes_nothing_any_more() -> None:
    row, breaker = probing()
    actions.reset_breaker(breaker_id=breaker.pk, by=made.BY)
    ended(row, "")
    breaker.refresh_from_db()
    assert breaker.state == "closed"


def test_logins_of_one_provider_are_judged_apart() -> None:
    ended(made.running(made.queued(login="key-1")))
    ended(made.running(made.queued(login="key-2")), "")
    assert list(Breaker.objects.values_list("login", "state")) == [("key-1", "open")]


STEPS = ("ask", "answer", "limit", "overload", "error", "stop", "wait", "reset")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=24))
def test_whatever_comes_a_login_is_tried_by_one_at_a_time_and_never_forgotten(table: None, steps: list[str]) -> None:
    with time_machine.travel(clock.now(), tick=False) as traveller, transaction.atomic():
        worker, live = made.WorkerFactory(), list[Execution]()
        bot = made.BotFactory(concurrency=100)
        for step in steps:
            _take(step, live, worker, bot, traveller)
            _check()
        transaction.set_rollback(True)


def _take(step: str, live: list[Execution], worker: Any, bot: Any, traveller: Any) -> None:
    breaker = Breaker.objects.first()
    causes = {"answer": "", "limit": Cause.USAGE_LIMIT, "overload": Cause.OVERLOADED, "error": Cause.MALFORMED}
    if step == "ask":
        tries = breaker is not None and breaker.state == "open" and actions.probe(breaker_id=breaker.pk, by=made.BY)
        if breaker is None or breaker.state == "closed" or tries:
            live.append(made.running(made.queued(identity=bot, **LOGIN, is_probe=tries), worker=worker))
    elif step in causes and live:
        retry_at = clock.now() + LATER if step == "limit" else None
        ended(live.pop(), causes[step], retry_at=retry_at)
    elif step == "stop" and live:
        ending = Ending(ExecutionState.STOPPED, OutcomeClass.STOPPED, gone=True)
        actions.finish(execution=live.pop(0), ending=ending, by=made.BY)
    elif step == "wait":
        traveller.shift(dt.timedelta(hours=3))
    elif step == "reset" and breaker:
        actions.reset_breaker(breaker_id=breaker.pk, by=made.BY)


def _check() -> None:
    breaker = Breaker.objects.first()
    trying = Execution.objects.filter(is_probe=True, state__in=EXECUTION.live).count()
    if breaker is None:
        assert trying == 0
        return
    if breaker.state == "half_open":
        assert trying >= 1  # somebody will tell how it went: it is never left half open
    if breaker.state == "closed":
        assert breaker.until is None and breaker.failures < 3
    else:
        assert breaker.until is not None and breaker.opened_at is not None
