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
TOKENS = 50
POLL_LATE_SECONDS = 120.0


def account_page(person: Person, *, after: int = 0) -> tuple[AccountPage, int | None]:
    """Return the page, and the id of the bot from which the list of gateway accounts goes on."""
    gateways: tuple[GatewayRow, ...] = ()
    more: int | None = None
    if Permission.GATEWAY_EDIT in person.permissions:
        gateways, more = _gateways(after)
    chats = ChatAccount.objects.filter(person=person).order_by("platform", "external_id")
    tokens = AccessToken.objects.filter(person=person, revoked_at=None, gateway=False).order_by("-pk")
    page = AccountPage(
        chat_accounts=tuple(chats.values_list("platform", "external_id", "paired_at")),
        tokens=tuple(_token(row) for row in tokens[:TOKENS]),
        gateways=gateways,
    )
    return page, more


def _token(row: AccessToken) -> TokenRow:
    return TokenRow(row.pk, row.name, row.prefix, row.created_at, row.last_used_at, row.expires_at)


def _gateways(after: int) -> tuple[tuple[GatewayRow, ...], int | None]:
    bots = list(identity_queries.identities().filter(pk__gt=after)[: GATEWAYS + 1])
    seen = {row.identity_slug: row for row in gateway_queries.account_statuses() if row.platform == Platform.TELEGRAM}
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
