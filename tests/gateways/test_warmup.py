"""Warming up asks what an admission asks, and leaves nothing behind."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from fleet.kernel import queue
from gateways.warmup import warm_up
from tests.factories.gateways import GatewayAccountFactory


@pytest.mark.django_db
def test_it_only_reads():
    GatewayAccountFactory(identity__provider_chain=["mock"])
    with CaptureQueriesContext(connection) as queries:
        warm_up()
    assert queries.captured_queries
    assert {query["sql"].split()[0] for query in queries.captured_queries} == {"SELECT"}


@pytest.mark.django_db
def test_without_accounts_there_is_little_to_do():
    warm_up()


def test_an_absent_broker_is_no_accident(monkeypatch):
    class Away:
        def acquire(self, block):
            raise ConnectionError("nobody answers")

    monkeypatch.setattr(type(queue.current_app._get_current_object()), "producer_pool", Away())
    assert queue.connect() is False
