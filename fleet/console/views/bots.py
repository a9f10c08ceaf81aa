"""The fleet and one bot."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from fleet.console.screens import bots
from fleet.console.views.answers import number, pager, person_of, show
from identities.permissions import Permission

LONGEST_SEARCH = 80


@require_safe
def bot_list(request: HttpRequest) -> HttpResponse:
    """Every bot with the state it was last seen in."""
    text = request.GET.get("q", "").strip()[:LONGEST_SEARCH]
    rows, more = bots.bot_rows(text=text, after=number(request, "after") or 0)
    context = {"rows": rows, "q": text, "pager": pager(request, after=more)}
    return show(request, "bots/list.html", context, part="rows")


@require_safe
def bot_detail(request: HttpRequest, slug: str) -> HttpResponse:
    """One bot: what it does now, who it is, what it may do."""
    permissions = person_of(request).permissions
    context = {
        "page": bots.bot_page(slug),
        "may_talk": Permission.BOT_TALK in permissions,
        "may_stop": Permission.FLEET_STOP in permissions,
        "may_change": Permission.RECORDS_EDIT in permissions,
    }
    part = "chain" if request.headers.get("HX-Target") == "bot-chain" else "now"
    return show(request, "bots/detail.html", context, part=part)
