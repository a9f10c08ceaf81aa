"""The console's socket: it tells pages which topics are out of date, and nothing else."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction
from django.test import Client

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from gateways.web import consumers
from gateways.web.console_feed import ConsoleFeed
from governance import actions as governance_actions
from identities.models import Person
from tests.gateways.web.sockets import Browser

BY = Actor.system("test")


def record(event):
    return journal.record(event, by=BY, subject=("thing", 7))


@pytest.fixture
def feed(transactional_db):
    feed = ConsoleFeed()
    feed.look()
    return feed


def topics(feed):
    return {frame["topic"] for frame in feed.look()}


@pytest.mark.parametrize(
    ("event", "out_of_date"),
    [
        ("governance.kill.ordered", {"kill", "fleet"}),
        ("conversations.turn.closed", {"conversations", "fleet"}),
        ("conversations.message.received", {"conversations"}),
        ("execution.execution.claimed", {"fleet"}),
        ("gateways.account.rejected", {"fleet"}),
        ("identities.identity.paused", {"fleet"}),
        ("kernel.something.else", set()),
    ],
)
def test_every_change_makes_its_topics_out_of_date(feed, event, out_of_date):
    record(event)
    assert topics(feed) == out_of_date


def test_a_change_is_told_once(feed):
    record("execution.execution.claimed")
    assert topics(feed) == {"fleet"}
    assert topics(feed) == set()


def test_many_changes_of_a_topic_are_one_frame_with_the_newest_version(feed):
    last = [record("execution.execution.claimed") for _ in range(5)][-1]
    [frame] = feed.look()
    assert frame == {"topic": "fleet", "id": "7", "version": last.pk, "kind": "execution.execution.claimed"}


def test_a_change_that_commits_late_is_not_passed_over(feed):
    """Its number is lower than one that was seen already."""
    written, seen = threading.Event(), threading.Event()

    def slowly():
        with transaction.atomic():
            record("governance.kill.ordered")
            written.set()
            seen.wait(30)
        connection.close()

    slow = threading.Thread(target=slowly)
    slow.start()
    written.wait(30)
    record("execution.execution.claimed")
    assert topics(feed) == {"fleet"}
    seen.set()
    slow.join()
    assert topics(feed) == {"kill", "fleet"}


def test_a_page_is_told_of_a_kill_order(browser, monkeypatch):
    monkeypatch.setattr(consumers.ConsoleConsumer, "LOOK_SECONDS", 0.6)
    look, looked = ConsoleFeed.look, threading.Event()
    monkeypatch.setattr(ConsoleFeed, "look", lambda feed: (look(feed), looked.set())[0])
    socket = browser.open("/ws/console/")
    assert looked.wait(30)  # what happened before the first look is on the page already
    order = governance_actions.stop(scope="fleet", scope_id="", mode="stop", reason="drill", by=BY)
    frame = socket.next(topic="kill")
    assert frame["id"] == str(order.pk)


def test_whoever_may_not_see_the_fleet_is_turned_away(browser, eva):
    Person.objects.filter(pk=eva.pk).update(roles=[])
    assert browser.open("/ws/console/").close_code() == 4403


def test_whoever_is_not_signed_in_is_told_so(transactional_db):
    browser = Browser(Client())
    assert browser.open("/ws/console/").close_code() == 4401
    browser.close()


def test_a_foreign_page_may_not_even_shake_hands(browser):
    assert not browser.open("/ws/console/", origin="http://127.0.0.1:3000").accepted
