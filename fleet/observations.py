"""What is really there at this moment: which parts answer, what waits, what runs. Each reading says how old it is.

Nothing here trusts that a process is well because it was started: a database is asked, a page is fetched, a beat is read. Every
probe has its own short limit, so that one dead part does not hide the others.
"""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Max, Min, QuerySet, Subquery
from django.db.models.functions import Coalesce

from conversations.models import Delivery, InboundMessage, Turn
from conversations.states import DeliveryState, InboundState, TurnState
from execution import queries as execution_queries
from execution.models import Execution, Worker
from execution.states import EXECUTION, ExecutionState
from fleet.kernel import clock
from fleet.kernel.models import JournalEntry, JournalSeal
from fleet.runner import runners_alive
from gateways import queries as gateway_queries
from gateways.states import AccountState
from governance import queries as governance_queries
from identities.queries import unsandboxed

UP, LATE, DOWN, IDLE = "up", "late", "down", "idle"
WELL = (UP, IDLE)
BEAT_LATE_SECONDS = 15.0
POLL_LATE_SECONDS = 120.0
SEAL_LATE_SECONDS = 30.0
SHOWN_EXECUTIONS = 50
_PROBE_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the system as it was seen: `up`, `late`, `down` or `idle`, a sentence, and how old the sign of life is."""

    name: str
    state: str
    sentence: str
    age_seconds: float | None = None

    @property
    def well(self) -> bool:
        """Return whether nothing needs to be done about it."""
        return self.state in WELL


@dataclass(frozen=True, slots=True)
class Queues:
    """How many rows wait, and for how long the oldest does."""

    inbox: int
    turns: int
    executions: int
    outbox: int
    oldest_waiting_seconds: float | None


@dataclass(frozen=True, slots=True)
class LiveExecution:
    """An execution that has not ended. `worker` is empty while nobody has it."""

    id: int
    identity: str
    state: str
    age_seconds: float
    worker: str


def database() -> Part:
    """Ask PostgreSQL over a connection of its own: the pool would wait for it far too long."""
    parameters = {**connection.get_connection_params(), "connect_timeout": 2}
    started = time.monotonic()
    try:
        with psycopg.connect(**parameters, autocommit=True) as direct:
            direct.execute("SELECT 1")
    except psycopg.Error as error:
        return Part("postgres", DOWN, f"It does not answer: {_first_line(error)}")
    return Part("postgres", UP, f"It answers in {_milliseconds(started)} ms.", 0.0)


def migrations() -> Part:
    """Say whether the schema is the one this code was written for."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        return Part("schema", DOWN, f"{len(missing)} migrations are missing. Run ./manage.py migrate.")
    return Part("schema", UP, "Every migration is applied.", 0.0)


def broker() -> Part:
    """Ask Redis. Without it nothing is lost, everything is only found a little later."""
    started = time.monotonic()
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_PROBE_SECONDS, socket_connect_timeout=_PROBE_SECONDS, retry=None
    )
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        return Part("redis", DOWN, f"It does not answer, so work is found by polling: {_first_line(error)}")
    finally:
        client.close()
    return Part("redis", UP, f"It answers in {_milliseconds(started)} ms.", 0.0)


def web() -> Part:
    """Fetch the health page from the port where this installation serves."""
    started = time.monotonic()
    line = http.client.HTTPConnection("127.0.0.1", settings.FLEET_PORT, timeout=_PROBE_SECONDS)
    try:
        line.request("GET", "/healthz")
        status = line.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Part("web", DOWN, f"Port {settings.FLEET_PORT} does not answer: {_first_line(error)}")
    finally:
        line.close()
    if status != 200:
        return Part("web", DOWN, f"Port {settings.FLEET_PORT} answers with {status}: another program may sit there.")
    return Part("web", UP, f"Port {settings.FLEET_PORT} answers in {_milliseconds(started)} ms.", 0.0)


def supervised() -> dict[str, str]:
    """Return what the supervisor of `make run` says about its processes (`web`: `RUNNING`); empty where there is none."""
    # Imported here: the supervisor's library is large, and the web process, which reads this module too, never asks it.
    from fleet.platform.installation import Installation
    from fleet.platform.supervision import Supervisor

    return Supervisor(Installation.from_environment()).states()


ALL_DRAINED = "all drained: messages wait until one takes work again (console, Runner)."


def workers() -> Part:
    """Read the beats of the workers."""
    alive = execution_queries.live_workers().annotate(age=clock.db_age("beat_at"))
    ages = [worker.age.total_seconds() for worker in alive]
    if not ages:
        return Part("worker", DOWN, "No worker beats: messages are taken in and wait.", _last_beat_age())
    youngest = min(ages)
    state = UP if youngest <= BEAT_LATE_SECONDS else LATE
    taking = [worker.slots for worker in alive if worker.draining_at is None]
    if not taking:
        return Part("worker", state, f"{len(ages)} beating, {ALL_DRAINED}", youngest)
    drained = f" {len(ages) - len(taking)} drained." if len(taking) < len(ages) else ""
    return Part("worker", state, f"{len(ages)} beating, {sum(taking)} slots.{drained}", youngest)


def _last_beat_age() -> float | None:
    return _seconds(Worker.objects.aggregate(age=Min(clock.db_age("beat_at")))["age"])


def runner() -> Part:
    """See whether a runner holds its sign of life, and whether the journal is sealed in time."""
    behind = _oldest_unsealed_age()
    if not runners_alive():
        return Part(
            "runner", DOWN, "No runner is alive: the journal is not sealed and sweeps are left to the workers.", behind
        )
    if behind is not None and behind > SEAL_LATE_SECONDS:
        return Part("runner", LATE, "It is alive, but the journal waits to be sealed.", behind)
    return Part("runner", UP, "It is alive and the journal is sealed.", behind or 0.0)


def _oldest_unsealed_age() -> float | None:
    last = JournalSeal.objects.order_by("-pk").values("transaction")[:1]
    later = JournalEntry.objects.filter(transaction__gt=Coalesce(Subquery(last), 0))
    return _seconds(later.aggregate(age=Max(clock.db_age("at")))["age"])


def gateways() -> Part:
    """See whether each account that should be polled is held by a process and answered by its platform."""
    accounts = [status for status in gateway_queries.account_statuses() if status.has_token]
    active = [status for status in accounts if status.state == AccountState.ACTIVE]
    troubled = [status for status in accounts if status.state == AccountState.REJECTED or status.sentence]
    unserved = [status for status in active if not status.served_by]
    if not accounts:
        return Part("gateways", IDLE, "No bot has a chat account yet.")
    age = max((status.poll_age_seconds for status in active if status.poll_age_seconds is not None), default=None)
    if unserved or troubled:
        names = ", ".join(sorted({status.key for status in (*unserved, *troubled)})[:5])
        return Part(
            "gateways", DOWN if len(unserved) == len(active) else LATE, f"Not served as they should be: {names}.", age
        )
    if age is None or age > POLL_LATE_SECONDS:
        return Part("gateways", LATE, f"{len(active)} held, but the platform's last answer is old.", age)
    return Part("gateways", UP, f"{len(active)} of {len(active)} polled.", age)


def queues() -> Queues:
    """Count what waits, with the age of the oldest row that a worker or a gateway should have taken."""
    waiting = {
        "inbox": (InboundMessage.objects.filter(state=InboundState.RECEIVED), "received_at"),
        "turns": (Turn.objects.filter(state=TurnState.QUEUED), "created_at"),
        "executions": (Execution.objects.filter(state=ExecutionState.QUEUED), "queued_at"),
        "outbox": (_outbox(), "since"),
    }
    counts = {name: _count_and_age(rows, field) for name, (rows, field) in waiting.items()}
    ages = [age for _, age in counts.values() if age is not None]
    return Queues(
        **{name: number for name, (number, _) in counts.items()}, oldest_waiting_seconds=max(ages, default=None)
    )


def _outbox() -> QuerySet[Delivery]:
    """Return what waits to be sent; what a person asked for waits since then."""
    return Delivery.objects.filter(state=DeliveryState.PENDING).annotate(since=Coalesce("asked_at", "created_at"))


def _count_and_age(rows: QuerySet[Any], field: str) -> tuple[int, float | None]:
    found = rows.aggregate(number=Count("pk"), age=Max(clock.db_age(field)))
    return found["number"], _seconds(found["age"])


@dataclass(frozen=True, slots=True)
class ShutLogin:
    """A login that is not used as usual: whose, why, until when it is left alone, and for how long it has been in trouble.

    `state` is that of its breaker, or `tried_next` once its moment has come: the next message tries it.
    """

    provider: str
    login: str
    state: str
    cause: str
    until: str
    age_seconds: float


def shut_logins() -> list[ShutLogin]:
    """Return the logins in trouble."""
    return [
        ShutLogin(
            row.provider,
            row.login,
            "tried_next" if row.may_be_tried else row.state,
            row.cause,
            row.until.isoformat(),
            (clock.now() - row.opened_at).total_seconds(),
        )
        for row in execution_queries.breakers()
        if row.until and row.opened_at
    ]


def live_executions() -> list[LiveExecution]:
    """Return the executions that have not ended, the oldest first, at most fifty."""
    rows = Execution.objects.filter(state__in=EXECUTION.live).annotate(age=clock.db_age("queued_at"))
    facts = rows.order_by("queued_at").values_list("pk", "identity__slug", "state", "age", "owner__host", "owner__pid")
    return [
        LiveExecution(pk, slug, state, age.total_seconds(), f"{host}:{pid}" if host else "")
        for pk, slug, state, age, host, pid in facts[:SHOWN_EXECUTIONS]
    ]


def live_execution_count() -> int:
    """Return how many executions have not ended."""
    return Execution.objects.filter(state__in=EXECUTION.live).count()


def turn_counts() -> dict[str, int]:
    """Return how many turns there are in each state."""
    found = dict(Turn.objects.order_by().values_list("state").annotate(number=Count("pk")))
    return {state: found.get(state, 0) for state in TurnState.values}


def walls() -> list[str]:
    """Return one sentence for each bot, and each host of a worker, whose CLIs run without a sandbox or do not run for want of one."""
    hosts = execution_queries.live_workers().exclude(unconfined="").order_by("host").values_list("host", "unconfined")
    waived = [f"{bot.slug}: its CLI may run without a sandbox, because: {bot.sandbox_waiver}" for bot in unsandboxed()]
    return [*(f"{host}: {why}" for host, why in hosts.distinct()), *waived]


def orders_in_force() -> list[str]:
    """Return one sentence for each kill order in force."""
    return [order.sentence for order in governance_queries.active_orders()]


def _seconds(age: Any) -> float | None:
    return None if age is None else float(age.total_seconds())


def _milliseconds(started: float) -> int:
    return max(1, round((time.monotonic() - started) * 1000))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
