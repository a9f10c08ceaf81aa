"""A person's own page: chat accounts, tokens, and, for those who may, the bots' Telegram accounts."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.console.presenters import AccountPage, BotName, GatewayRow, TokenRow
from fleet.console.statuses import Status
from gateways import queries as gateway_queries
from gateways.queries import AccountStatus
from gateways.states import AccountState, Platform
from identities import queries as identity_queries
from identities.models import AccessToken, ChatAccount, Person
from identities.permissions import Permission

GATEWAYS = 50
TOKENS = 20
CHATS = 20
POLL_LATE_SECONDS = 120.0


def account_page(
    person: Person, *, chats_after: int = 0, tokens_before: int | None = None, bots_after: int = 0
) -> AccountPage:
    """Return the page with one stretch of each of its three lists, and the ids from which they go on."""
    gateways: tuple[GatewayRow, ...] = ()
    more: int | None = None
    if Permission.GATEWAY_EDIT in person.permissions:
        gateways, more = _gateways(bots_after)
    chats = list(ChatAccount.objects.filter(person=person, pk__gt=chats_after).order_by("pk")[: CHATS + 1])
    tokens = AccessToken.objects.filter(person=person, revoked_at=None, gateway=False).order_by("-pk")
    valid = list((tokens.filter(pk__lt=tokens_before) if tokens_before is not None else tokens)[: TOKENS + 1])
    return AccountPage(
        chat_accounts=tuple((row.platform, row.external_id, row.paired_at) for row in chats[:CHATS]),
        tokens=tuple(_token(row) for row in valid[:TOKENS]),
        gateways=gateways,
        more_chats=chats[CHATS - 1].pk if len(chats) > CHATS else None,
        more_tokens=valid[TOKENS - 1].pk if len(valid) > TOKENS else None,
        more_gateways=more,
    )


def _token(row: AccessToken) -> TokenRow:
    return TokenRow(row.pk, row.name, row.prefix, row.created_at, row.last_used_at, row.expires_at)


def _gateways(after: int) -> tuple[tuple[GatewayRow, ...], int | None]:
    bots = list(identity_queries.identities().filter(pk__gt=after)[: GATEWAYS + 1])
    statuses = gateway_queries.account_statuses(only=[bot.slug for bot in bots[:GATEWAYS]])
    seen = {row.identity_slug: row for row in statuses if row.platform == Platform.TELEGRAM}
    more = bots[GATEWAYS - 1].pk if len(bots) > GATEWAYS else None
    return tuple(_gateway(BotName(bot.slug, bot.name, bot.title), seen) for bot in bots[:GATEWAYS]), more


def _gateway(bot: BotName, seen: Mapping[str, AccountStatus]) -> GatewayRow:
    account = seen.get(bot.slug)
    if account is None or not account.has_token:
        return GatewayRow(bot, Status("unknown", "No token"), None, "not reachable on Telegram")
    return GatewayRow(bot, _status(account), account.last_poll_at, _note(account))


def _status(account: AccountStatus) -> Status:
    if account.state == AccountState.REJECTED:
        return Status("failed", "Token refused")
    if account.state == AccountState.OFF:
        return Status("held", "Switched off")
    if not account.served_by:
        return Status("waiting", "Not served")
    age = account.poll_age_seconds
    if age is None or age > POLL_LATE_SECONDS:
        return Status("waiting", "Waiting for Telegram")
    return Status("ok", "Listening")


def _note(account: AccountStatus) -> str:
    if account.sentence:
        return account.sentence
    name = f"@{account.username}" if account.username else ""
    return f"{name} polled" if account.last_poll_at else name
