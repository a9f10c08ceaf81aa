"""Answers a provider that wants to use a tool: kill switch, the bot's grants, Gate 1. Every doubt is a no."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog
from django.db import connection

from execution.models import Execution
from execution.toolcalls import ToolCall, Verdict
from fleet.kernel.exceptions import FleetError
from governance import actions as governance_actions
from governance import policies as governance_policies
from governance.policies import GateRequest, PolicyVerdict
from governance.states import Gate, Outcome
from identities import policies as identity_policies
from identities.models import ToolGrant

log = structlog.get_logger(__name__)


class Gatekeeper:
    """The judge of one execution's tool calls. `refused` is told of every call that may not run, as call, tool, target, reason."""

    def __init__(self, execution: Execution, *, workspace: Path, refused: Callable[..., None]) -> None:
        self._execution, self._workspace, self._refused = execution, workspace, refused
        self._home = threading.get_ident()

    def judge(self, call: ToolCall) -> Verdict:
        """Decide one call; may be asked from any thread, leaves no connection behind in another than its own, and never raises."""
        try:
            return self._judge(call, self._target(call))
        finally:
            if threading.get_ident() != self._home:
                connection.close()

    def _judge(self, call: ToolCall, target: str) -> Verdict:
        try:
            verdict = self._ask(call.tool, target)
        except FleetError as refusal:
            verdict = Verdict(False, refusal.sentence)
        except Exception:
            log.exception("tool.not_judged", execution=self._execution.pk, tool=call.tool)
            verdict = Verdict(False, "Fleet could not decide whether this is allowed, so it is not.")
        if not verdict.allow:
            self._refused(call=call.call_id, tool=call.tool, target=target[:500], reason=verdict.reason)
        return verdict

    def _target(self, call: ToolCall) -> str:
        """Return what the call is aimed at; a path inside the workspace is relative to it, as grants are written."""
        target = call.target
        inside = f"{self._workspace}/"
        return target[len(inside) :] if target.startswith(inside) and call.tool != "Bash" else target

    def _ask(self, tool: str, target: str) -> Verdict:
        execution = self._execution
        identity = execution.identity
        governance_policies.check_not_killed(
            identity_slug=identity.slug,
            conversation_id=execution.conversation_id,
            execution_id=execution.pk,
            since_epoch=execution.kill_epoch,
            running=True,
        )
        grants = ToolGrant.objects.filter(identity=identity)
        grant = identity_policies.tool_decision(grants, tool=tool, target=target)
        ruling = governance_policies.judge(
            GateRequest.use_tool(identity=identity, tool=tool, target=target, grant=grant)
        )
        if ruling.outcome == Outcome.ALLOW:
            return Verdict(True)
        self._remember(tool, target, ruling)
        return Verdict(False, f"{ruling.sentence} {ruling.next_step}".strip())

    def _remember(self, tool: str, target: str, ruling: PolicyVerdict) -> None:
        governance_actions.record_decision(
            gate=Gate.TOOL,
            outcome=ruling.outcome,
            reason_code=ruling.reason_code,
            sentence=ruling.sentence,
            next_step=ruling.next_step,
            origin_kind="execution",
            origin_id=self._execution.pk,
            identity_slug=self._execution.identity.slug,
            facts={"tool": tool, "target": target[:500], "policy_version": ruling.policy_version},
        )
