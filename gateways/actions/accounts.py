"""A bot's account on a platform: its token, whether it is served, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import structlog
from django.db import IntegrityError, transaction

from fleet.kernel import clock, journal, live
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError, Invalid, StateConflict
from fleet.kernel.transitions import move
from gateways import events
from gateways.models import GatewayAccount, hash_of
from gateways.states import ACCOUNT, AccountState, Platform
from identities import queries as identity_queries
from identities.models import Identity

log = structlog.get_logger(__name__)

_TOKEN_SHAPES = {Platform.TELEGRAM: re.compile(r"\d{1,20}:[A-Za-z0-9_-]{1,200}")}


def set_token(*, identity: Identity, platform: str, token: str, by: Actor) -> GatewayAccount:
    """Give a bot its token for a platform and serve it from now on; the same token again changes nothing but wakes a refused account.

    Raises Invalid for a text that is no token, StateConflict when another bot uses the token.
    """
    token = token.strip()
    _check_shape(platform, token)
    try:
        with transaction.atomic():
            return _set_token(identity, platform, token, by=by)
    except IntegrityError as error:
        raise _taken(token) from error


def _set_token(identity: Identity, platform: str, token: str, *, by: Actor) -> GatewayAccount:
    account = _open(identity, platform, by=by)
    if account.token_hash != hash_of(token):
        account.keep_token(token)
        account.username = ""
        account.save(update_fields=["token_hash", "token_sealed", "username"])
        journal.record(events.TOKEN_SET, by=by, subject=("gateway_account", account.key))
    if account.state == AccountState.ACTIVE:
        report(key=account.key, sentence="", by=by)
    else:
        activate(account, by=by)
    _tell(account)
    return account


def take_over_tokens(tokens: Mapping[str, str], *, by: Actor) -> list[str]:
    """Store the Telegram tokens of the environment, {slug: token}; return a sentence for each that could not be used.

    A token is taken over once: what an operator enters in the console afterwards stays, until the environment names another one.
    """
    problems = []
    for slug, token in tokens.items():
        try:
            _take_over(slug, token, by=by)
        except FleetError as error:
            log.warning("gateways.token_unusable", identity=slug, sentence=error.sentence)
            problems.append(f"FLEET_TELEGRAM_{slug.upper().replace('-', '_')}_TOKEN: {error.sentence}")
    return problems


@transaction.atomic
def _take_over(slug: str, token: str, *, by: Actor) -> None:
    identity = identity_queries.get_identity(slug)
    digest = hash_of(token.strip())
    known = GatewayAccount.objects.filter(identity=identity, platform=Platform.TELEGRAM).first()
    if known and known.environment_hash == digest:
        return
    account = set_token(identity=identity, platform=Platform.TELEGRAM, token=token, by=by)
    GatewayAccount.objects.filter(pk=account.pk).update(environment_hash=digest)
    journal.record(events.TOKEN_TAKEN_OVER, by=by, subject=("gateway_account", account.key))


def activate(account: GatewayAccount, *, by: Actor) -> GatewayAccount:
    """Serve an account again that was refused or switched off."""
    move(account, ACCOUNT, AccountState.ACTIVE, by=by, event=events.ACCOUNT_ACTIVATED, sentence="")
    _tell(account)
    return account


def switch_off(account: GatewayAccount, *, by: Actor) -> GatewayAccount:
    """Stop serving an account; its messages wait at the platform, its answers in the outbox."""
    move(account, ACCOUNT, AccountState.OFF, by=by, event=events.ACCOUNT_SWITCHED_OFF)
    _tell(account)
    return account


def reject(*, key: str, token_hash: str, sentence: str, by: Actor) -> None:
    """Note that the platform refused this token; does nothing when the account has another one by now."""
    account = GatewayAccount.objects.filter(key=key, token_hash=token_hash, state=AccountState.ACTIVE).first()
    if account is None:
        return
    try:
        move(
            account,
            ACCOUNT,
            AccountState.REJECTED,
            by=by,
            event=events.ACCOUNT_REJECTED,
            guard={"token_hash": token_hash},
            details={"sentence": sentence},
            sentence=sentence,
        )
    except StateConflict:
        return
    _tell(account)


@transaction.atomic
def report(*, key: str, sentence: str, by: Actor) -> None:
    """Note what is wrong with an account that is still served; an empty sentence means that all is well again."""
    changed = GatewayAccount.objects.filter(key=key, state=AccountState.ACTIVE).exclude(sentence=sentence)
    if changed.update(sentence=sentence):
        journal.record(events.ACCOUNT_REPORTED, by=by, subject=("gateway_account", key), sentence=sentence)
        live.hint("fleet", account=key)


@transaction.atomic
def introduce(*, key: str, username: str, by: Actor) -> None:
    """Note the name under which the platform knows the bot."""
    if GatewayAccount.objects.filter(key=key).exclude(username=username).update(username=username):
        journal.record(events.ACCOUNT_INTRODUCED, by=by, subject=("gateway_account", key), username=username)


def note_activity(*, polled: Iterable[str], heard: Iterable[str]) -> None:
    """Note that these accounts (by key) answered a poll, and that these had a real message, just now. A sign of life, not a change."""
    GatewayAccount.objects.filter(key__in=list(polled)).update(last_poll_at=clock.db_now())
    GatewayAccount.objects.filter(key__in=list(heard)).update(last_inbound_at=clock.db_now())


def _open(identity: Identity, platform: str, *, by: Actor) -> GatewayAccount:
    account, fresh = GatewayAccount.objects.select_for_update(of=("self",)).get_or_create(
        identity=identity, platform=platform, defaults={"key": f"{platform}:{identity.slug}"}
    )
    if fresh:
        journal.record(events.ACCOUNT_OPENED, by=by, subject=("gateway_account", account.key))
    return account


def _check_shape(platform: str, token: str) -> None:
    shape = _TOKEN_SHAPES.get(Platform(platform))
    if shape is None:
        raise Invalid(f"Accounts on {platform} have no token.", code="no_token")
    if not shape.fullmatch(token):
        raise Invalid(
            "This is not a Telegram token.",
            why="A token looks like 123456789:AA… and has no spaces.",
            next_step="Copy it again from BotFather.",
            code="token_shape",
        )


def _taken(token: str) -> StateConflict:
    other = GatewayAccount.objects.select_related("identity").filter(token_hash=hash_of(token)).first()
    return StateConflict(
        "This token is in use.",
        why=f"{other.identity.name} uses it." if other else "Another bot has just taken it.",
        next_step="Each bot needs a token of its own: make one with BotFather.",
        code="token_taken",
    )


def _tell(account: GatewayAccount) -> None:
    live.hint("gateways", account=account.key)
    live.hint("fleet", account=account.key)
