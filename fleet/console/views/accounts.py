"""A person's own page, and what can be made on it. Secrets are shown in the answer that makes them, and never again."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST, require_safe

from fleet.console.forms import GatewayTokenForm, TokenForm
from fleet.console.screens.accounts import account_page
from fleet.console.views.answers import actor_of, complaints, number, pager, person_of, secret, show
from fleet.kernel.exceptions import FleetError
from gateways import actions as gateway_actions
from gateways.states import Platform
from identities import queries as identity_queries
from identities.actions.pairing import issue_pairing_code
from identities.actions.tokens import issue_access_token, revoke_access_token
from identities.models import AccessToken
from identities.permissions import Permission

_UNUSABLE = 422


@require_safe
def account(request: HttpRequest) -> HttpResponse:
    """Chat accounts, tokens and the look of the console."""
    return _page(request)


@require_POST
def pair(request: HttpRequest) -> HttpResponse:
    """Make a one-time pairing code and show it once."""
    try:
        code, until = issue_pairing_code(person=person_of(request), by=actor_of(request))
    except FleetError as error:
        messages.error(request, error.sentence)
        return redirect("console:account")
    return secret(_page(request, pairing_code=code, pairing_until=until))


@require_POST
def make_token(request: HttpRequest) -> HttpResponse:
    """Make a personal token and show it once."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, form=form, status=_UNUSABLE)
    text, _row = issue_access_token(person=person_of(request), name=form.cleaned_data["name"], by=actor_of(request))
    return secret(_page(request, fresh_token=text))


@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """End one of the person's own tokens."""
    token = get_object_or_404(AccessToken, pk=token_id, person=person_of(request))
    revoke_access_token(token=token, by=actor_of(request))
    messages.success(request, f"The token “{token.name}” no longer works.")
    return redirect("console:account")


@require_POST
def gateway_token(request: HttpRequest) -> HttpResponse:
    """Keep a bot's Telegram token, encrypted; it is never shown again."""
    form = GatewayTokenForm(request.POST)
    if not form.is_valid():
        messages.error(request, complaints(form))
        return redirect("console:account")
    bot = identity_queries.get_identity(form.cleaned_data["bot"])
    try:
        gateway_actions.set_token(
            identity=bot, platform=Platform.TELEGRAM, token=form.cleaned_data["token"], by=actor_of(request)
        )
    except FleetError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"{bot.name} has a new Telegram token and is being connected.")
    return redirect("console:account")


def _page(request: HttpRequest, *, form: TokenForm | None = None, status: int = 200, **fresh: Any) -> HttpResponse:
    person = person_of(request)
    page = account_page(
        person,
        chats_after=number(request, "chats") or 0,
        tokens_before=number(request, "tokens"),
        bots_after=number(request, "after") or 0,
    )
    context = {
        "page": dataclasses.replace(page, **fresh),
        "token_form": form or TokenForm(),
        "may_edit_gateways": Permission.GATEWAY_EDIT in person.permissions,
        "chats_pager": pager(request, chats=page.more_chats),
        "tokens_pager": pager(request, tokens=page.more_tokens),
        "gateways_pager": pager(request, after=page.more_gateways),
    }
    return show(request, "profile/account.html", context, status=status)
