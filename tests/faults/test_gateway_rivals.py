"""Two gateway processes and one token: exactly one polls, and the other takes over when it ends."""

# ruff: noqa: F811 - fixtures are asked for by their names
from __future__ import annotations

import pytest

from gateways.models import TokenLease
from tests.gateways.cast import ada, ada_on_telegram, eva, eva_talks, gateways, telegram  # noqa: F401 - fixtures
from tests.gateways.running import until

pytestmark = pytest.mark.stack


def conflicts(telegram) -> int:
    return sum(call.status == 409 for call in telegram.calls("getUpdates"))


def test_the_second_process_waits_and_takes_over_in_order(telegram, ada_on_telegram, eva, eva_talks, gateways):
    first = gateways.start()
    first.wait_for("telegram.polling ")
    second = gateways.start()
    second.wait_for("telegram.served_elsewhere")
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/start"))
    assert "telegram.polling " not in second.text()

    assert first.stop() == 0
    second.wait_for("telegram.polling ")
    eva_talks.wait_for_reply(eva_talks.send(ada_on_telegram, "/help"))
    assert conflicts(telegram) == 0


def test_whoever_lost_the_lease_stops_polling(telegram, ada_on_telegram, gateways):
    """A process that slept through its lease must not poll beside the new holder."""
    first = gateways.start()
    first.wait_for("telegram.polling ")
    process = TokenLease.objects.get().holder
    process.pk = None
    process.pid_started_at -= 0.5
    process.save(force_insert=True)
    TokenLease.objects.update(holder=process)
    first.wait_for("telegram.leases_lost")
    first.wait_for("telegram.polling_ended")
    assert until(lambda: TokenLease.objects.get().holder_id == process.pk)
