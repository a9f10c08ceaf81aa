"""Reads of gateways; no side effects."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.db.models import QuerySet

from conversations.models import Turn
from conversations.states import TURN
from fleet.kernel import clock
from gateways.models import GatewayAccount, GatewayProcess, TokenLease
from gateways.states import AccountState
from governance.states import KillScope
from identities.states import IdentityState


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """How an account is doing: who serves it, when it last answered a poll and last had a real message, and what is wrong."""

    key: str
    platform: str
    identity_slug: str
    state: str
    username: str
    has_token: bool
    served_by: str
    last_poll_at: dt.datetime | None
    last_inbound_at: dt.datetime | None
    sentence: str

    @property
    def poll_age_seconds(self) -> float | None:
        """Return how long ago the platform last answered a poll; None when it never did."""
        return (clock.now() - self.last_poll_at).total_seconds() if self.last_poll_at else None


def accounts_to_serve(platform: str | None = None, *, only: Collection[str] = ()) -> list[GatewayAccount]:
    """Return the active accounts that have a token, of one platform or all; `only` limits them to bots of these slugs."""
    rows = _served().select_related("identity")
    if platform:
        rows = rows.filter(platform=platform)
    if only:
        rows = rows.filter(identity__slug__in=only)
    return list(rows.order_by("pk"))


def _served() -> QuerySet[GatewayAccount]:
    rows = GatewayAccount.objects.filter(state=AccountState.ACTIVE).exclude(token_hash="")
    return rows.exclude(identity__state=IdentityState.RETIRED)


def is_served(key: str) -> bool:
    """Return whether the gateway process sends what goes to this account."""
    return _served().filter(key=key).exists()


def token_holders(token_hashes: Iterable[str]) -> dict[str, TokenLease]:
    """Return the leases of these tokens that have not expired by the database's clock, with their holders."""
    rows = TokenLease.objects.select_related("holder").filter(token_hash__in=list(token_hashes))
    return {lease.token_hash: lease for lease in rows.filter(until__gte=clock.db_now())}


def account_statuses(*, only: Collection[str] | None = None) -> list[AccountStatus]:
    """Return every account's status in the order of the bots; `only` limits them to bots of these slugs."""
    rows = GatewayAccount.objects.select_related("identity").order_by("identity_id", "platform")
    accounts = list(rows if only is None else rows.filter(identity__slug__in=only))
    leases = token_holders(account.token_hash for account in accounts if account.token_hash)
    return [_status(account, leases.get(account.token_hash)) for account in accounts]


def _status(account: GatewayAccount, lease: TokenLease | None) -> AccountStatus:
    return AccountStatus(
        key=account.key,
        platform=account.platform,
        identity_slug=account.identity.slug,
        state=account.state,
        username=account.username,
        has_token=bool(account.token_hash),
        served_by=str(lease.holder) if lease else "",
        last_poll_at=account.last_poll_at,
        last_inbound_at=account.last_inbound_at,
        sentence=account.sentence,
    )


def keys_in_scope(*, scope: str, scope_id: str) -> list[str]:
    """Return the accounts that a kill order of this scope must silence: those being served, of the fleet or of one bot."""
    rows = GatewayAccount.objects.filter(state=AccountState.ACTIVE).exclude(token_hash="")
    if scope == KillScope.IDENTITY:
        rows = rows.filter(identity__slug=scope_id)
    elif scope != KillScope.FLEET:
        return []
    return list(rows.order_by("pk").values_list("key", flat=True))


def turns_at_work(turn_ids: Collection[int]) -> set[int]:
    """Return those of these turns that have not ended."""
    rows = Turn.objects.filter(pk__in=turn_ids, state__in=TURN.live)
    return set(rows.values_list("pk", flat=True))


def free_tokens(token_hashes: Collection[str], *, process: GatewayProcess) -> list[str]:
    """Return the tokens whose lease this process could take now: nobody else holds them, or the holder is proved to be gone."""
    held = token_holders(token_hashes)
    return [
        digest
        for digest in token_hashes
        if (lease := held.get(digest)) is None or lease.holder_id == process.pk or lease.holder.is_provably_gone()
    ]
