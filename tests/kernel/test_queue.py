"""Calling on a worker: after commit, and never at the price of the caller's time when Redis is ill."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from kombu import pools

from fleet.celery import app
from fleet.kernel import queue

GENEROUS_SECONDS = 30


@pytest.fixture(autouse=True)
def a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No failure remembered, no connection open."""
    monkeypatch.setattr(queue, "_silent_until", 0.0)
    app._after_fork()
    pools.reset()
    yield
    app._after_fork()
    pools.reset()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was published."""
    jobs: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(queue, "publish", lambda job, arguments, queue=None: jobs.append((job, arguments)))
    return jobs


def within(seconds: float, call: Callable[[], object]) -> object:
    """Call in a thread of its own and return what it said; a call that hangs fails the test instead of hanging it."""
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert answers, f"no answer within {seconds} s"
    return answers[0]


@pytest.mark.django_db(transaction=True)
class TestEnqueue:
    def test_a_job_is_sent_when_the_transaction_commits(self, sent: list[Any]):
        with transaction.atomic():
            queue.enqueue("tests.job", number=1)
            assert sent == []

        assert sent == [("tests.job", {"number": 1})]

    def test_a_rolled_back_change_sends_nothing(self, sent: list[Any]):
        with pytest.raises(RuntimeError), transaction.atomic():
            queue.enqueue("tests.job", number=1)
            raise RuntimeError

        assert sent == []

    def test_a_broken_broker_does_not_break_the_committed_change(self, monkeypatch: pytest.MonkeyPatch):
        def explode(*arguments: object, **options: object) -> None:
            raise ConnectionError("broker gone")

        monkeypatch.setattr(app, "send_task", explode)

        with transaction.atomic():
            queue.enqueue("tests.job", number=1)


class TestPublish:
    def test_a_message_reaches_the_broker(self):
        assert queue.publish("tests.job", {"number": 1}, queue="tests-kernel") is True
        with app.connection_for_read() as connection:
            message = connection.SimpleQueue("tests-kernel").get(timeout=GENEROUS_SECONDS)
            message.ack()
        assert message.headers["task"] == "tests.job"

    def test_a_dead_redis_costs_a_moment_and_raises_nothing(self, valkey: Any):
        valkey.kill()
        try:
            assert within(GENEROUS_SECONDS, lambda: queue.publish("tests.job", {})) is False
        finally:
            valkey.start()

    def test_a_frozen_redis_does_not_hold_the_caller(self, valkey: Any):
        valkey.pause()
        try:
            assert within(GENEROUS_SECONDS, lambda: queue.publish("tests.job", {})) is False
        finally:
            valkey.resume()

    def test_a_connection_that_froze_while_open_does_not_hold_the_caller(self, valkey: Any):
        assert queue.publish("tests.job", {}) is True
        valkey.pause()
        try:
            assert within(GENEROUS_SECONDS, lambda: queue.publish("tests.job", {})) is False
        finally:
            valkey.resume()

    @pytest.mark.parametrize("illness", ["kill", "pause"])
    def test_when_redis_is_back_messages_flow_again(self, valkey: Any, illness: str, monkeypatch: pytest.MonkeyPatch):
        assert queue.publish("tests.job", {}) is True
        getattr(valkey, illness)()
        try:
            assert within(GENEROUS_SECONDS, lambda: queue.publish("tests.job", {})) is False
        finally:
            valkey.start() if illness == "kill" else valkey.resume()
        monkeypatch.setattr(queue, "_silent_until", 0.0)

        assert within(GENEROUS_SECONDS, lambda: queue.publish("tests.job", {})) is True

    def test_after_a_failure_nobody_waits_for_redis_for_a_while(self, monkeypatch: pytest.MonkeyPatch):
        calls: list[str] = []

        def explode(job: str, **options: object) -> None:
            calls.append(job)
            raise ConnectionError("broker gone")

        monkeypatch.setattr(app, "send_task", explode)

        assert [queue.publish("tests.job", {}) for _ in range(3)] == [False, False, False]
        assert calls == ["tests.job"]
