"""Whether we may: the kill switch's check and Gate 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.kernel.exceptions import Refused
from governance import queries
from governance.cedar import engine
from governance.models import KillOrder
from governance.states import Outcome
from identities.models import Identity, Person

LONGEST_TARGET = 2000


def check_not_killed(
    *,
    identity_slug: str,
    conversation_id: int | None = None,
    execution_id: int | None = None,
    since_epoch: int | None = None,
    running: bool = False,
) -> int:
    """Return the kill epoch, or raise Refused (code `killed`) naming who stopped what and why. One query.

    `since_epoch`: the epoch the work was admitted under; an order given since then holds it even when lifted meanwhile.
    `running`: the work has begun already, so an order that only drains lets it finish.
    """
    epoch, order = queries.order_reaching(
        identity_slug=identity_slug,
        conversation_id=conversation_id,
        execution_id=execution_id,
        since_epoch=since_epoch,
        hard_only=running,
    )
    if order is not None:
        raise _killed(order)
    return epoch


def _killed(order: KillOrder) -> Refused:
    if order.in_force:
        next_step = "Send it again when the order has been lifted (console, Kill switch)."
    else:
        next_step = "The order was lifted since. Send it again if it is still wanted."
    return Refused("Nothing new is started here.", why=order.sentence, next_step=next_step, code="killed")


@dataclass(frozen=True, slots=True)
class GateRequest:
    """One question to Gate 1, with the facts it may need. `principal` and `resource` are `Type::id`; `subject` is for people."""

    action: str
    principal: str
    resource: str
    context: Mapping[str, Any]
    entities: tuple[dict[str, Any], ...] = ()
    subject: str = ""
    known: bool = True

    @classmethod
    def admit(cls, *, person: Person | None, identity: Identity, origin: str, account: str) -> GateRequest:
        """Ask whether this person may talk to this bot; `origin` is chat, task …, `account` where it came in."""
        principal = f"Person::{person.pk}" if person else "Stranger::unknown"
        return cls(
            action="admit",
            principal=principal,
            resource=f"Bot::{identity.slug}",
            context={"origin": {"kind": origin, "account": account}},
            entities=(_person(principal, person), _bot(identity)),
            subject=identity.name,
            known=person is not None,
        )

    @classmethod
    def use_tool(cls, *, identity: Identity, tool: str, target: str, grant: str | None) -> GateRequest:
        """Ask whether this bot may use this tool; `grant` is identities.policies.tool_decision's answer."""
        return cls(
            action="use_tool",
            principal=f"Bot::{identity.slug}",
            resource=f"Tool::{tool}",
            context={"grant": grant or "none", "target": target[:LONGEST_TARGET]},
            entities=(_bot(identity), engine.entity(f"Tool::{tool}")),
            subject=f"{identity.name}: {tool}",
        )


def _person(name: str, person: Person | None) -> dict[str, Any]:
    if person is None:
        return engine.entity(name)
    permissions = sorted(str(permission) for permission in person.permissions)
    return engine.entity(name, active=person.is_active, roles=sorted(person.roles), permissions=permissions)


def _bot(identity: Identity) -> dict[str, Any]:
    return engine.entity(f"Bot::{identity.slug}", state=str(identity.state), department=identity.department)


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """Gate 1's answer. `policy_version` is the policy's number, empty when there was none to ask; `rules` decided."""

    outcome: Outcome
    reason_code: str
    sentence: str
    next_step: str = ""
    policy_version: str = ""
    rules: tuple[str, ...] = ()


def judge(request: GateRequest) -> PolicyVerdict:
    """Return what the active policy says. Without a policy the shipped one is asked; every doubt is a refusal."""
    policy = queries.active_policy()
    text, version = (policy.text, str(policy.pk)) if policy else (engine.DEFAULT_POLICY, "shipped")
    ruling = engine.ask(
        text,
        principal=request.principal,
        action=f"Action::{request.action}",
        resource=request.resource,
        context=request.context,
        entities=request.entities,
    )
    if ruling.allowed:
        return PolicyVerdict(Outcome.ALLOW, "policy_allows", "Allowed.", policy_version=version, rules=ruling.rules)
    code, sentence, next_step = _explain(request, ruling)
    return PolicyVerdict(Outcome.REFUSE, code, sentence, next_step, version, ruling.rules)


def _explain(request: GateRequest, ruling: engine.Ruling) -> tuple[str, str, str]:
    """Return (code, sentence, next step) of a refusal."""
    ask_admin = "Ask an administrator to look at the policy."
    if ruling.trouble:
        return "policy_error", f"{request.subject}: refused, because {ruling.trouble}.", ask_admin
    if ruling.rules:
        return "policy_forbids", f"{request.subject}: the policy forbids it ({', '.join(ruling.rules)}).", ask_admin
    if request.action == "use_tool":
        return _explain_tool(request)
    if not request.known:
        return "unpaired", f"{request.subject} talks only to people it knows.", "Pair your account: /pair CODE"
    return "not_permitted", f"No rule of the policy lets you talk to {request.subject}.", ask_admin


def _explain_tool(request: GateRequest) -> tuple[str, str, str]:
    grant = request.context["grant"]
    edit = "Ask whoever keeps this bot to change its tool grants."
    if grant == "ask":
        why = "a person would have to approve it, and approvals cannot be given yet"
        return "approval_unavailable", f"{request.subject} is refused: {why}.", edit
    if grant == "deny":
        return "tool_denied", f"{request.subject} is refused: its grants deny it.", edit
    if grant == "none":
        return "tool_not_granted", f"{request.subject} is refused: no grant covers it.", edit
    return "not_permitted", f"{request.subject} is refused: no rule of the policy permits it.", edit
