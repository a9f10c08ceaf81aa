"""What the page of logins reads."""

from __future__ import annotations

from django.conf import settings

from budgets.states import Billing
from conversations import queries as conversation_queries
from execution import queries as execution_queries
from execution.models import Breaker, ProviderCheck
from execution.ports import ExecutionProvider
from execution.providers import registry
from execution.states import BreakerState, Cause
from fleet.console.presenters import CaseRow, CheckRow, LoginRow
from fleet.console.statuses import check_status, login_status

_KINDS: dict[str, str] = {Billing.API: "key", Billing.SUBSCRIPTION: "subscription"}


def login_kind(billing: str) -> str:
    """Return the word for what stands behind a login: a key, a subscription, or just a login where nobody knows any more."""
    return _KINDS.get(billing, "login")


def login_rows() -> tuple[list[LoginRow], list[LoginRow]]:
    """Return the logins of this installation in the order of the settings, and earlier ones that are still left alone."""
    breakers = {(row.provider, row.login): row for row in execution_queries.breakers()}
    now = [_row(seen, breakers.pop((seen.provider, seen.login), None)) for seen in execution_queries.logins()]
    # Nothing tries an earlier login again, so once its moment has passed there is nothing to tell of it.
    earlier = [row for row in breakers.values() if row.state != BreakerState.CLOSED and not row.may_be_tried]
    return now, [_row(execution_queries.Login(row.provider, row.login, ""), row) for row in earlier]


def check_rows() -> list[CheckRow]:
    """Return the installed CLIs in the order of the settings, each with its last check."""
    checks = execution_queries.last_checks()
    providers = (registry.get(name) for name in settings.FLEET_PROVIDERS)
    return [_checked(one, checks.get(one.capabilities.name)) for one in providers if one.capabilities.spawns_process]


def _checked(provider: ExecutionProvider, check: ProviderCheck | None) -> CheckRow:
    name, installed = provider.capabilities.name, provider.version()
    cases = tuple(CaseRow(case["case"], case["kept"], case["sentence"]) for case in check.cases) if check else ()
    stale = check is not None and bool(installed) and check.version != installed
    state = "never" if check is None else "stale" if stale else "kept" if check.kept else "failed"
    told = {
        "never": f"Nobody has checked it. Run ./manage.py providers check {name}",
        "stale": f"The check was of {check.version if check else ''}. Run ./manage.py providers check {name}",
    }
    return CheckRow(
        provider=name.capitalize(),
        version=installed or (check.version if check else ""),
        status=check_status(state),
        sentence=told.get(state, ""),
        at=check.at if check else None,
        cases=cases,
    )


def parked_count() -> int:
    """Return how many messages wait for a login."""
    return conversation_queries.parked_depth()


def _row(seen: execution_queries.Login, breaker: Breaker | None) -> LoginRow:
    is_shut = breaker is not None and breaker.state != BreakerState.CLOSED
    due = breaker is not None and breaker.may_be_tried
    state = breaker.state if breaker and is_shut else "missing" if seen.missing else BreakerState.CLOSED
    return LoginRow(
        provider=seen.provider.capitalize(),
        login=seen.login,
        kind=login_kind(seen.billing),
        status=login_status("tried_next" if due else state),
        sentence=_why(breaker) if breaker and is_shut else seen.missing,
        opened_at=breaker.opened_at if breaker and is_shut else None,
        until=breaker.until if breaker and is_shut and not due else None,
        id=breaker.pk if breaker else None,
        may_be_reset=is_shut,
    )


def _why(breaker: Breaker) -> str:
    cause = Cause(breaker.cause).label if breaker.cause else ""
    return breaker.sentence or cause.capitalize()
