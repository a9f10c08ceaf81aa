"""Token leases: at most one process polls with a token, by the database's clock."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest

from fleet.kernel import clock
from fleet.kernel.actors import Actor
from gateways import actions, queries
from gateways.actions import LEASE
from gateways.models import GatewayProcess, TokenLease, hash_of
from gateways.telegram.bot import POLL_SECONDS
from gateways.telegram.poller import Lease
from tests.factories.gateways import GatewayAccountFactory, GatewayProcessFactory, TokenLeaseFactory

BY = Actor.system("test")
TOKEN = hash_of("1001:a")
pytestmark = pytest.mark.django_db


@pytest.fixture
def me():
    return actions.start_process(by=BY)


def take(process):
    return actions.take_lease(token_hash=TOKEN, process=process, by=BY)


def seconds_left():
    return (TokenLease.objects.get().until - clock.now()).total_seconds()


def expire():
    TokenLease.objects.update(until=clock.db_now(-dt.timedelta(seconds=1)))


def test_a_free_token_is_taken(me):
    assert take(me)
    assert TokenLease.objects.get().holder == me
    assert seconds_left() == pytest.approx(LEASE.total_seconds(), abs=20)


def test_a_held_token_is_not(me):
    TokenLeaseFactory(token_hash=TOKEN)
    assert not take(me)


def test_an_expired_lease_may_be_taken(me):
    TokenLeaseFactory(token_hash=TOKEN)
    expire()
    assert take(me)


def test_a_lease_that_was_given_back_may_be_taken(me):
    other = GatewayProcessFactory()
    assert take(other)
    actions.release_leases(token_hashes=[TOKEN], process=other, by=BY)
    assert take(me)


def test_nobody_gives_back_what_another_holds(me):
    TokenLeaseFactory(token_hash=TOKEN)
    actions.release_leases(token_hashes=[TOKEN], process=me, by=BY)
    assert not take(me)


def test_the_holder_may_ask_again(me):
    assert take(me)
    assert take(me)


def test_renewing_tells_which_leases_are_still_ours(me):
    take(me)
    other = TokenLeaseFactory().token_hash
    assert actions.renew_leases(token_hashes=[TOKEN, other], process=me) == {TOKEN}


def test_a_lease_that_was_taken_over_cannot_be_renewed_back(me):
    other = GatewayProcessFactory()
    take(other)
    expire()
    take(me)
    assert actions.renew_leases(token_hashes=[TOKEN], process=other) == set()
    assert TokenLease.objects.get().holder == me


def test_whoever_takes_over_has_waited_longer_than_the_last_poll_could_last():
    assert Lease.FRESH_SECONDS > 0
    assert LEASE.total_seconds() > Lease.FRESH_SECONDS + POLL_SECONDS


class TestAHolderThatIsGone:
    def test_need_not_be_waited_for_when_this_machine_can_prove_it(self, me):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        holder = GatewayProcess.of_this_process()
        holder.pid, holder.pid_started_at = child.pid, _started(child.pid)
        holder.save(force_insert=True)
        take(holder)
        assert not take(me)
        child.kill()
        child.wait()
        assert take(me)

    def test_is_not_mistaken_for_a_new_process_with_its_number(self, me):
        holder = GatewayProcess.of_this_process()
        holder.pid_started_at -= 1000
        holder.save(force_insert=True)
        take(holder)
        assert take(me)

    def test_is_gone_when_the_machine_was_started_anew(self, me):
        holder = GatewayProcess.of_this_process()
        holder.boot_id = "another boot"
        holder.save(force_insert=True)
        take(holder)
        assert take(me)

    def test_is_gone_when_it_said_goodbye(self, me):
        holder = GatewayProcessFactory()
        take(holder)
        actions.stop_process(holder, by=BY)
        assert take(me)

    def test_is_waited_for_when_it_lives_elsewhere(self, me):
        take(GatewayProcessFactory())
        assert not take(me)


def test_free_tokens_are_found_in_one_go(me, django_assert_num_queries):
    held, mine, expired = TokenLeaseFactory(), TokenLeaseFactory(holder=me), TokenLeaseFactory()
    TokenLease.objects.filter(pk=expired.pk).update(until=clock.db_now(-dt.timedelta(seconds=1)))
    hashes = [held.token_hash, mine.token_hash, expired.token_hash, TOKEN]
    with django_assert_num_queries(1):
        assert queries.free_tokens(hashes, process=me) == hashes[1:]


def test_the_status_of_an_account_names_who_serves_it(me, django_assert_num_queries):
    account = GatewayAccountFactory(token_hash=TOKEN, sentence="Something is odd.")
    take(me)
    actions.note_activity(polled=[account.key], heard=[account.key])
    with django_assert_num_queries(2):
        [status] = queries.account_statuses()
    assert status.served_by == str(me)
    assert status.sentence == "Something is odd."
    assert status.last_inbound_at is not None
    assert 0 <= status.poll_age_seconds < 60


def test_an_account_nobody_serves_says_so():
    GatewayAccountFactory()
    [status] = queries.account_statuses()
    assert (status.served_by, status.poll_age_seconds) == ("", None)


def _started(pid):
    import psutil

    return psutil.Process(pid).create_time()
