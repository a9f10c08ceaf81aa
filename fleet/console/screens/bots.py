"""The fleet's list and the page of one bot: what each bot was last seen doing, and why it is idle when it is."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from django.db.models import OuterRef, Q, QuerySet, Subquery

from budgets import queries as budget_queries
from budgets.queries import SpentToday
from conversations.models import Conversation, Turn
from conversations.states import TurnState
from execution import queries as execution_queries
from execution.models import Execution
from execution.states import EXECUTION, ExecutionState
from fleet.console import markdown
from fleet.console.presenters import BotName, BotPage, BotRow, Skill, Spend
from fleet.console.screens.chats import conversation_row
from fleet.console.screens.runs import runs_of
from fleet.console.statuses import Status
from fleet.kernel import clock
from governance.models import IN_FORCE, KillOrder
from governance.states import KillMode, KillScope
from identities import queries as identity_queries
from identities.models import Identity, TextPointer, ToolGrant
from identities.states import IdentityState, TextKind

PAGE = 50
RECENT_CONVERSATIONS = 5

_BROKEN = (ExecutionState.FAILED, ExecutionState.LOST)
_OFF_DUTY = {
    IdentityState.DRAFT: (Status("held", "Draft"), "Being written; takes no messages"),
    IdentityState.PAUSED: (Status("held", "Paused"), "Refuses messages until an operator resumes it"),
    IdentityState.RETIRED: (Status("held", "Retired"), "Kept for its history only"),
}


@dataclass(frozen=True, slots=True)
class Duty:
    """What was observed about one bot: its live executions, how many turns wait, its last execution, and an order that holds it.

    `parked`: all that waits does so for a login. `unserved`: why no worker takes anything new, empty when one does.
    """

    running: Sequence[Execution]
    waiting: int
    parked: bool
    last: Execution | None
    order: KillOrder | None
    unserved: str


def bot_rows(*, text: str = "", after: int = 0, limit: int = PAGE) -> tuple[list[BotRow], int | None]:
    """Return bots by id after `after` whose name, title or department contains `text`, and the id to go on from."""
    found = identity_queries.identities().filter(pk__gt=after)
    if text:
        found = found.filter(Q(name__icontains=text) | Q(title__icontains=text) | Q(department__icontains=text))
    bots = list(_with_last(found)[: limit + 1])
    more = bots[limit - 1].pk if len(bots) > limit else None
    return _rows(bots[:limit]), more


def bot_page(slug: str) -> BotPage:
    """Return everything the page of one bot shows; NotFound for a slug nobody has."""
    bot = _with_last(Identity.objects.select_related("owner", "manager").filter(slug=slug)).first()
    if bot is None:
        bot = identity_queries.get_identity(slug)  # raises the sentence
    texts = list(TextPointer.objects.filter(identity=bot).select_related("live").order_by("name"))
    soul = next((text.live for text in texts if text.kind == TextKind.SOUL), None)
    grants = tuple(ToolGrant.objects.filter(identity=bot).order_by("pattern").values_list("pattern", "decision"))
    recent = Conversation.objects.filter(identity=bot).select_related("identity").order_by("-last_message_at", "-pk")
    row, runs = _rows([bot])[0], runs_of(bot, grants)
    if runs.answers and row.status.tone != "running":
        row = replace(row, provider=runs.answers[0], model=runs.answers[1])
    return BotPage(
        id=bot.pk,
        row=row,
        timezone=bot.timezone,
        owner=bot.owner.get_username() if bot.owner else "",
        manager=bot_name(bot.manager) if bot.manager else None,
        soul=markdown.render(soul.content, top=3, breaks=False) if soul else None,
        soul_version=soul.sha256[:8] if soul else "",
        soul_since=soul.created_at if soul else None,
        soul_author=soul.author if soul else "",
        skills=tuple(
            Skill(text.name, text.live.sha256[:8], text.live.created_at)
            for text in texts
            if text.kind == TextKind.SKILL
        ),
        grants=grants,
        runs=runs,
        conversations=tuple(conversation_row(row) for row in recent[:RECENT_CONVERSATIONS]),
    )


def bot_name(bot: Identity) -> BotName:
    """Return a bot as it is named anywhere."""
    return BotName(bot.slug, bot.name, bot.title)


def _with_last(bots: QuerySet[Identity]) -> QuerySet[Identity]:
    last = Execution.objects.filter(identity=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    return bots.annotate(last_execution_id=Subquery(last))


def _rows(bots: list[Identity]) -> list[BotRow]:
    duties = _duties(bots)
    today = budget_queries.spent_today([bot.slug for bot in bots])
    return [_row(bot, duties[bot.pk], _spend(today[bot.slug])) for bot in bots]


def _spend(today: SpentToday) -> Spend:
    return Spend(today.spent_nano_usd, today.limit_nano_usd)


def _duties(bots: Sequence[Identity]) -> Mapping[int, Duty]:
    keys = [bot.pk for bot in bots]
    live = Execution.objects.filter(identity__in=keys, state__in=EXECUTION.live).select_related("turn__conversation")
    running: dict[int, list[Execution]] = {key: [] for key in keys}
    for execution in live.defer("prompt", "answer", "details").order_by("pk"):
        running[execution.identity_id].append(execution)
    waiting, parked = _waiting(keys)
    last_ids = [getattr(bot, "last_execution_id", None) for bot in bots]
    last = {row.identity_id: row for row in Execution.objects.filter(pk__in=[key for key in last_ids if key])}
    orders = list(KillOrder.objects.filter(IN_FORCE, scope__in=[KillScope.FLEET, KillScope.IDENTITY]).order_by("scope"))
    unserved = _unserved()
    duties = {}
    for bot in bots:
        key, order = bot.pk, _order_on(bot, orders)
        parked_only = waiting[key] > 0 and waiting[key] == parked[key]
        duties[key] = Duty(running[key], waiting[key], parked_only, last.get(key), order, unserved)
    return duties


def _unserved() -> str:
    served = execution_queries.takes_work()
    if served is None:
        return "no worker is alive"
    return "" if served else "every worker is drained until one takes work again (Runner)"


def _waiting(keys: Sequence[int]) -> tuple[Counter[int], Counter[int]]:
    """Return by bot how many turns wait, and how many of them for a login."""
    rows = list(
        Turn.objects.filter(identity__in=keys, state=TurnState.QUEUED).values_list("identity_id", "parked_until")
    )
    now = clock.now()
    return Counter(bot for bot, _ in rows), Counter(bot for bot, until in rows if until and until > now)


def _order_on(bot: Identity, orders: Sequence[KillOrder]) -> KillOrder | None:
    return next((order for order in orders if order.scope == KillScope.FLEET or order.scope_id == bot.slug), None)


def _row(bot: Identity, duty: Duty, spend: Spend) -> BotRow:
    status, activity, why_idle = _seen(bot, duty)
    if duty.running:
        provider, model = duty.running[0].provider, duty.running[0].model
    else:
        provider, model = execution_queries.provider_for(bot)
    return BotRow(
        bot=bot_name(bot),
        department=bot.department,
        provider=provider,
        model=model,
        status=status,
        activity=activity,
        why_idle=why_idle,
        last_activity_at=_last_activity(duty),
        spend=spend,
    )


def _seen(bot: Identity, duty: Duty) -> tuple[Status, str, str]:
    """Return status, activity and why idle. What runs is shown even when an order says that it should not."""
    started = [row for row in duty.running if row.state != ExecutionState.QUEUED]
    if started:
        return _at_work(started, duty.order)
    if bot.state != IdentityState.ACTIVE:
        status, why = _OFF_DUTY[IdentityState(bot.state)]
        return status, "", why
    if duty.order:
        word = "Stopped" if duty.order.mode == KillMode.STOP else "Drained"
        return Status("held", word), "", f"{duty.order.ordered_by}: {duty.order.reason}"
    return _at_rest(duty)


def _at_work(started: Sequence[Execution], order: KillOrder | None) -> tuple[Status, str, str]:
    now = clock.now()
    silent = [row for row in started if row.lease_until and row.lease_until < now]
    if silent:
        return Status("unknown", "Unknown"), "", "Says it is running, but its worker gives no sign of life"
    if any(row.state == ExecutionState.WAITING_APPROVAL for row in started):
        return Status("human", "Waiting for a person"), "A tool call waits for approval", ""
    activity = " · ".join(filter(None, [_where(started[0]), _and_more(len(started) - 1)]))
    if order and order.mode == KillMode.STOP:
        return Status("failed", "Still running"), f"{activity}, although a stop is in force", ""
    return Status("running", "Running"), activity, ""


def _where(execution: Execution) -> str:
    turn = getattr(execution, "turn", None)
    title = turn.conversation.title if turn else ""
    return f"Answering in “{title}”" if title else "Answering"


def _and_more(others: int) -> str:
    return f"{others} more at once" if others else ""


def _at_rest(duty: Duty) -> tuple[Status, str, str]:
    queued = len(duty.running) + duty.waiting
    if queued:
        told = f"{queued} {'turn' if queued == 1 else 'turns'}: the first {_what_it_waits_for(duty)}"
        return Status("waiting", "Queued"), "", told
    if duty.unserved:
        return Status("waiting", "Not served"), "", f"A message would wait: {duty.unserved}"
    if duty.last and duty.last.state in _BROKEN:
        return Status("failed", "Last turn failed"), "", duty.last.sentence
    return Status("ok", "Ready"), "", "No message is waiting"


def _what_it_waits_for(duty: Duty) -> str:
    if not duty.running and duty.parked:
        return "waits until one of its logins may be used again"
    return f"waits: {duty.unserved}" if duty.unserved else "waits for a free worker"


def _last_activity(duty: Duty) -> dt.datetime | None:
    if any(row.state != ExecutionState.QUEUED for row in duty.running):
        return clock.now()
    return (duty.last.ended_at or duty.last.queued_at) if duty.last else None
