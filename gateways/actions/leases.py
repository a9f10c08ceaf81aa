"""Token leases: at most one process polls with a token.

Whoever takes a lease over has waited longer than the old holder's last long poll could last, unless the old holder released it or is
proved to be gone. All times are the database's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Q

from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from gateways import events
from gateways.models import GatewayProcess, TokenLease

LEASE = dt.timedelta(seconds=45)


@transaction.atomic
def take_lease(*, token_hash: str, process: GatewayProcess, by: Actor) -> bool:
    """Take the right to poll with a token; return False while another process has it."""
    until = clock.db_now(LEASE)
    lease, taken = TokenLease.objects.select_related("holder").get_or_create(
        token_hash=token_hash, defaults={"holder": process, "until": until}
    )
    if not taken:
        free = Q(until__lt=clock.db_now()) | Q(holder=process)
        if lease.holder.is_provably_gone():
            free |= Q(holder=lease.holder)
        taken = TokenLease.objects.filter(free, token_hash=token_hash).update(holder=process, until=until) == 1
    if taken:
        journal.record(events.LEASE_TAKEN, by=by, subject=("gateway_process", process.pk), token_hash=token_hash)
    return taken


def renew_leases(*, token_hashes: Iterable[str], process: GatewayProcess) -> set[str]:
    """Extend the leases this process still holds; return their token hashes. Who is missing must stop polling at once."""
    mine = TokenLease.objects.filter(token_hash__in=list(token_hashes), holder=process)
    mine.update(until=clock.db_now(LEASE))
    return set(mine.values_list("token_hash", flat=True))


@transaction.atomic
def release_leases(*, token_hashes: Iterable[str], process: GatewayProcess, by: Actor) -> None:
    """Give the right to poll back; only call it when no poll with these tokens is under way any more."""
    for token_hash in token_hashes:
        if TokenLease.objects.filter(token_hash=token_hash, holder=process).delete()[0]:
            journal.record(events.LEASE_RELEASED, by=by, subject=("gateway_process", process.pk), token_hash=token_hash)
