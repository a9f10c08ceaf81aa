"""What others ask about executions, and what a worker asks at every turn of its clocks."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce

from execution.models import (
    Breaker,
    Execution,
    ExecutionEvent,
    ExecutionQuerySet,
    HeldProcess,
    Offer,
    ProviderCheck,
    TranscriptLine,
    Worker,
)
from execution.policies import UNPAID, within
from execution.ports import ProcessFacts
from execution.providers import registry
from execution.states import EXECUTION, LEASED, OFFER, Cause, EventKind, ExecutionState, is_due
from fleet.kernel import clock
from governance import queries as governance_queries
from governance.models import KillOrder, StopLine
from governance.states import KillMode, KillScope, OrderState
from identities.models import Identity

LOOK_AGAIN = dt.timedelta(seconds=15)
MOST_LOGINS = 100
_IDLE = "idle:"  # how a receipt names what is no execution


@dataclass(frozen=True, slots=True)
class ExecutionMode:
    """Who answers in this installation: a provider's name, and a sentence for the console's banner, empty unless it is the mock."""

    mode: str
    sentence: str


def execution_mode() -> ExecutionMode:
    """Return whether a bot answers with the mock because its own providers cannot be used, and how to switch."""
    chains = _chains_in_use()
    answering = {tuple(chain): registry.usable(chain)[0].capabilities.name for chain in chains}
    without = [chain for chain, name in answering.items() if name not in chain]
    if not without:
        return ExecutionMode(next(iter(answering.values())), "")
    missing = registry.lacking(without[0])
    return ExecutionMode(
        "mock",
        f"Bots answer with the built-in mock, which costs nothing and thinks nothing. {missing}",
    )


def _chains_in_use() -> list[list[str]]:
    """Return the bots' chains. They are asked for only where some providers can be used and others not: then it depends."""
    real = [registry.get(name) for name in settings.FLEET_PROVIDERS if name != registry.FALLBACK]
    if any(provider.check() for provider in real) and not all(provider.check() for provider in real):
        chains = list(Identity.objects.order_by().values_list("provider_chain", flat=True).distinct())
        return chains or [["claude"]]
    return [["claude"]]


def provider_for(identity: Identity) -> tuple[str, str]:
    """Return (provider, model) of a bot whose logins are well: the first of its chain that is usable here, else the mock."""
    capabilities = registry.usable(identity.provider_chain)[0].capabilities
    return capabilities.name, capabilities.model_for(identity.model)


@dataclass(frozen=True, slots=True)
class Shut:
    """A login that is not used now. `until` is when one execution may try it; `opening` tells one promise from the next."""

    id: int
    provider: str
    login: str
    state: str
    cause: str
    until: dt.datetime
    opening: int

    @property
    def may_be_tried(self) -> bool:
        """Return whether its moment has come and nobody tries it yet."""
        return is_due(self.state, self.until)


# One value for a statement that reads something else anyway: an admission does not ask a second time.
SHUT_LOGINS = """
    SELECT coalesce(json_agg(json_build_object('id', id, 'provider', provider, 'login', login, 'state', state, 'cause', cause,
        'until', until, 'opening', opening)), '[]') FROM execution_breaker WHERE state <> 'closed'
"""


def shut_logins(value: Any = None) -> tuple[Shut, ...]:
    """Return the logins that are not used now, read from what `SHUT_LOGINS` gave; without it, ask."""
    if value is None:
        with connection.cursor() as cursor:
            cursor.execute(SHUT_LOGINS)
            (value,) = cursor.fetchone()
    rows = json.loads(value) if isinstance(value, str) else value
    return tuple(Shut(**{**row, "until": dt.datetime.fromisoformat(row["until"])}) for row in rows)


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers. `tries` is the shut login that this turn tries out, `passed` are those before it in the chain that are shut."""

    provider: str
    model: str
    login: str
    tries: Shut | None = None
    passed: tuple[Shut, ...] = ()


@dataclass(frozen=True, slots=True)
class NobodyAnswers:
    """Every login of the chain is shut. `until` is when the first of them may be used again."""

    shut: tuple[Shut, ...]
    until: dt.datetime


def choose(identity: Identity, shut: Collection[Shut], *, last: Collection[str] = ()) -> Choice | NobodyAnswers:
    """Return who answers the next turn of a bot: the first of its chain whose login may be used; those in `last` only after the others."""
    guards = {(breaker.provider, breaker.login): breaker for breaker in shut}
    chain = [(one.capabilities, one.login()) for one in registry.usable(identity.provider_chain)]
    found = [(capabilities, login, guards.get((capabilities.name, login))) for capabilities, login in chain]
    usable = [one for one in found if one[2] is None or one[2].may_be_tried]
    if not usable:
        return _nobody([guard for _, _, guard in found if guard])
    chosen = min(usable, key=lambda one: one[0].name in last)  # the first of those that come before the others
    capabilities, login, tries = chosen
    passed = tuple(guard for _, _, guard in found[: found.index(chosen)] if guard)
    return Choice(capabilities.name, capabilities.model_for(identity.model), login, tries, passed)


def _nobody(shut: list[Shut]) -> NobodyAnswers:
    """One that is tried right now is looked at again soon, whatever was promised: it may be well at any moment."""
    return NobodyAnswers(tuple(shut), max(clock.now() + LOOK_AGAIN, min(guard.until for guard in shut)))


@dataclass(frozen=True, slots=True)
class Login:
    """A provider of this installation with the login it uses; `missing` says what it lacks to be used at all.

    `billing` is how the login pays; empty where it is not known any more.
    """

    provider: str
    login: str
    missing: str
    billing: str = ""


def logins() -> list[Login]:
    """Return the providers of this installation whose logins a breaker guards, and what those lack that are not set up."""
    providers = [registry.get(name) for name in settings.FLEET_PROVIDERS]
    seen = [(one.capabilities.name, one.check(), one) for one in providers]
    return [
        Login(name, "" if missing else one.login(), missing, one.billing())
        for name, missing, one in seen
        if missing or one.login()
    ]


def breakers() -> list[Breaker]:
    """Return every login that was ever in trouble, those in trouble now first."""
    return list(Breaker.objects.order_by(F("opened_at").desc(nulls_last=True), "provider", "login")[:MOST_LOGINS])


def had_effect(execution: Execution) -> bool:
    """Return whether a tool was called or a text was shown: then nothing of it is ever repeated by itself."""
    return bool(execution.tool_calls or execution.first_text_at or execution.answer)


def failed_before(origin_kind: str, origin_id: str) -> dict[str, str]:
    """Return the providers that this origin's earlier executions failed with, each with the last cause."""
    rows = Execution.objects.filter(origin_kind=origin_kind, origin_id=origin_id, state=ExecutionState.FAILED)
    rows = rows.exclude(cause=Cause.HOLD_ENDED)  # that one asked its provider nothing
    return dict(rows.order_by("pk").values_list("provider", "cause"))


def last_checks() -> dict[str, ProviderCheck]:
    """Return the newest check of every provider that was ever checked, by name."""
    return {check.provider: check for check in ProviderCheck.objects.order_by("provider", "-at").distinct("provider")}


def doubts(names: Collection[str] | None = None) -> list[str]:
    """Return a sentence for every provider in use, or of these, whose installed version was not checked, or failed its check."""
    checks = last_checks()
    providers = [registry.get(name) for name in settings.FLEET_PROVIDERS if names is None or name in names]
    used = [one for one in providers if one.capabilities.spawns_process and not one.check()]
    said = [_doubt(one.capabilities.name, one.version(), checks.get(one.capabilities.name)) for one in used]
    return [sentence for sentence in said if sentence]


def _doubt(name: str, version: str, check: ProviderCheck | None) -> str:
    called = f"{name} {version}".strip()
    if check is None or (version and check.version != version):
        return f"{called} has not been checked; run ./manage.py providers check {name}."
    failed = [case["case"] for case in check.cases if not case["kept"]]
    return f"{called} failed its check ({', '.join(failed)}); see ./manage.py providers." if failed else ""


def shown_text(execution: Execution) -> str:
    """Return what the person has seen of the answer."""
    lines = ExecutionEvent.objects.filter(execution=execution, kind=EventKind.TEXT).order_by("sequence")
    return "".join(lines.values_list("payload__text", flat=True))


BESIDE = (EventKind.RATE_LIMIT, EventKind.NOTICE)  # events that say nothing about what the provider is doing


def waits_for() -> Subquery:
    """Return, for a statement about executions, what each one's provider waits for before it asks its API again; empty for others."""
    rows = ExecutionEvent.objects.filter(execution=OuterRef("pk")).exclude(kind__in=BESIDE).order_by("-sequence")
    text = Case(
        When(kind=EventKind.RETRYING, then=KeyTextTransform("text", "payload")),
        default=Value(""),
        output_field=TextField(),
    )
    return Subquery(rows.values(told=text)[:1])


def events_after(execution_id: int, sequence: int = 0, limit: int = 500) -> list[ExecutionEvent]:
    """Return at most `limit` events of an execution that come after `sequence`, in order."""
    later = ExecutionEvent.objects.filter(execution_id=execution_id, sequence__gt=sequence)
    return list(later.order_by("sequence")[:limit])


def live_ids(*, scope: str, scope_id: str) -> list[int]:
    """Return the executions of a kill scope that have not ended."""
    live = Execution.objects.filter(within(scope, scope_id), state__in=EXECUTION.live)
    return list(live.order_by("pk").values_list("pk", flat=True))


def idle_subjects(*, scope: str, scope_id: str) -> list[str]:
    """Return how a kill order names the held processes of its scope that have nothing to do; to be asked in its transaction.

    A row is kept from being struck until the order has its line. One that is being changed right now is passed over, since a stop
    waits for nobody: what it held gets a line of its own when it is gone.
    """
    works = Execution.objects.filter(session_id=OuterRef("session_id"), owner=OuterRef("worker"), state__in=LEASED)
    rows = HeldProcess.objects.filter(~Exists(works), pid__isnull=False)
    if scope == KillScope.IDENTITY:
        rows = rows.filter(identity__slug=scope_id)
    elif scope == KillScope.CONVERSATION:
        rows = rows.filter(conversation_id=int(scope_id))
    elif scope == KillScope.EXECUTION:
        return []
    locked = rows.select_related("worker").select_for_update(of=["self"], skip_locked=True)
    return sorted({idle_subject(process) for row in locked if (process := row.process)})


def idle_subject(process: ProcessFacts) -> str:
    """Return how the receipt of a kill order names a process that has nothing to do."""
    return f"{_IDLE}{process.host}:{process.pid}"


def waited_for(*, also_lifted: bool = False) -> list[int]:
    """Return the executions whose processes an order's receipt waits to see gone; `also_lifted`: of orders that are over, too."""
    lines = StopLine.objects.filter(kind="process", quiet_at=None).exclude(subject__startswith=_IDLE)
    lines = lines if also_lifted else lines.exclude(order__state=OrderState.LIFTED)
    return [int(subject) for subject in lines.values_list("subject", flat=True)]


def live_workers() -> QuerySet[Worker]:
    """Return the workers that beat within the last 30 seconds."""
    return Worker.objects.filter(stopped_at=None, beat_at__gt=clock.db_now(-dt.timedelta(seconds=30)))


def takes_work() -> bool | None:
    """Return whether a worker takes what is new: False when all that live are drained, None when none lives."""
    draining = list(live_workers().values_list("draining_at", flat=True))
    return None in draining if draining else None


def busy_with_identity() -> Coalesce:
    """Return, as an expression on executions, how many of the same bot hold a lease."""
    held = Execution.objects.filter(identity=OuterRef("identity"), state__in=LEASED).order_by().values("identity")
    count = Subquery(held.annotate(number=Count("pk")).values("number"), output_field=IntegerField())
    return Coalesce(count, Value(0))


def unclaimed(*, older_than: dt.timedelta, limit: int, worker_id: uuid.UUID | None = None) -> list[tuple[int, int]]:
    """Return (id, epoch) of queued executions whose hint reached nobody, oldest first; those of bots at their limit are left out.

    So is what is not paid for until the sweep has looked. Nothing for a worker that is being drained.
    """
    queued = Execution.objects.filter(state=ExecutionState.QUEUED, queued_at__lt=clock.db_now(-older_than)).exclude(
        UNPAID
    )
    if worker_id is not None:
        queued = queued.exclude(Exists(Worker.objects.filter(pk=worker_id, draining_at__isnull=False)))
    free = queued.annotate(busy=busy_with_identity()).filter(busy__lt=_limit_of_identity())
    return list(free.order_by("queued_at").values_list("pk", "epoch")[:limit])


def _limit_of_identity() -> Subquery:
    return Subquery(Identity.objects.filter(pk=OuterRef("identity")).values("concurrency"))


def held_by_others(worker: Worker) -> ExecutionQuerySet:
    """Return what other workers of this machine hold, with its owner and whether its lease is over (`lease_is_over`)."""
    held: ExecutionQuerySet = Execution.objects.filter(state__in=LEASED, owner__boot_id=worker.boot_id)
    over = ExpressionWrapper(Q(lease_until__lt=clock.db_now()), output_field=BooleanField())
    return held.exclude(owner=worker).select_related("owner").annotate(lease_is_over=over).order_by("pk")


def still_owned(held: Collection[Execution]) -> dict[int, Execution]:
    """Return the current rows of those executions that their claimants still own, with only what a watcher needs."""
    rows: ExecutionQuerySet = Execution.objects.filter(pk__in=[row.pk for row in held], state__in=LEASED)
    mine = {(row.pk, row.epoch, row.owner_id, row.claimed_at) for row in held}
    current = rows.only("epoch", "owner", "claimed_at", "stop_requested_at", "stop_reason", "offered")
    return {row.pk: row for row in current if (row.pk, row.epoch, row.owner_id, row.claimed_at) in mine}


def undecided_offers(execution_id: int) -> set[uuid.UUID]:
    """Return the messages that were offered to a running turn and of which nobody knows yet whether it takes them."""
    rows = Offer.objects.filter(execution=execution_id, state__in=OFFER.live)
    return set(rows.values_list("uuid", flat=True))


def is_owned(execution: Execution) -> bool:
    """Return whether the execution is still its claimant's."""
    return Execution.objects.owned(execution).exists()


def goes_on_elsewhere(execution: Execution) -> bool:
    """Return whether a worker has adopted the turn that `execution` is an earlier claim of, and still runs it."""
    going_on = (ExecutionState.RUNNING, ExecutionState.WAITING_APPROVAL)
    return Execution.objects.filter(pk=execution.pk, epoch__gt=execution.epoch, state__in=going_on).exists()


def ordered_to_die(held: Collection[Execution]) -> dict[int, str]:
    """Return, for those of these executions that a stop order reaches, who ordered it and why. One query while nothing is stopped."""
    found: dict[int, str] = {}
    for order in governance_queries.active_orders():
        if order.mode == KillMode.STOP:
            named = set(governance_queries.open_lines(order).filter(kind="process").values_list("subject", flat=True))
            reached = (row for row in held if str(row.pk) in named or _in_scope(row, order))
            found |= {row.pk: order.sentence for row in reached}
    return found


def _in_scope(row: Execution, order: KillOrder) -> bool:
    scopes = {
        KillScope.FLEET: "",
        KillScope.IDENTITY: row.identity.slug,
        KillScope.CONVERSATION: str(row.conversation_id),
        KillScope.EXECUTION: str(row.pk),
    }
    return scopes[KillScope(order.scope)] == order.scope_id


def mirrored_transcript(session_id: str, project: str | None = None) -> dict[str, list[str]]:
    """Return the copy of a session's transcripts, path → lines in order; the empty path is the session itself.

    Without `project` wherever it was spoken in: an id belongs to one session, and another host names its directory otherwise.
    """
    rows = TranscriptLine.objects.filter(session_id=session_id).order_by("pk")
    if project is not None:
        rows = rows.filter(project=project)
    found: dict[str, list[str]] = {}
    for path, line in rows.values_list("path", "line"):
        found.setdefault(path, []).append(line)
    return found
