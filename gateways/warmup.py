"""What the first message would otherwise wait for: modules, tables and connections that are made at first use."""

from __future__ import annotations

from budgets import queries as budget_queries
from execution import queries as execution_queries
from fleet.kernel import queue
from gateways import queries
from governance import policies as governance_policies
from governance.policies import GateRequest
from identities import queries as identity_queries


def warm_up() -> None:
    """Ask what an admission asks, for one bot. Only reads."""
    queue.connect()
    account = next(iter(queries.accounts_to_serve()), None)
    if account is None:
        return
    _provider, model = execution_queries.provider_for(account.identity)
    budget_queries.is_priced(model)
    identity_queries.compiled(account.identity)
    governance_policies.judge(
        GateRequest.admit(person=None, identity=account.identity, origin="chat", account=account.key)
    )
