"""What an agent asks before it acts, answered by our judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from acp.exceptions import RequestError
from acp.schema import (
    AllowedOutcome,
    DeniedOutcome,
    PermissionOption,
    RequestPermissionRequest,
    RequestPermissionResponse,
)

from execution.ports import ProviderEvent
from execution.providers.acp.calls import Known
from execution.providers.acp.translate import Translator
from execution.toolcalls import Judge, Verdict

ASKS = "session/request_permission"
_REFUSAL = "fleet/refusal"  # in an answer's `_meta`, for a worker that goes on with the turn
_UNKNOWN = Verdict(False, "Fleet could not see what was asked for, so it is not allowed.")
_NO_ONCE = Verdict(False, "The agent offered no permission for this one time, so it is not allowed.")


class Permissions:
    """Answers the requests of one turn. `tell` puts an event where the worker reads it; all runs on one loop."""

    def __init__(self, translator: Translator, judge: Judge, *, tell: Callable[[ProviderEvent], None]) -> None:
        self._translator, self._judge, self._tell = translator, judge, tell
        self.cancelled = asyncio.Event()

    async def answer(self, method: str, params: Any) -> RequestPermissionResponse:
        """Answer what an agent asks of its client. Raises RequestError for anything but a permission: we offer nothing else."""
        if method != ASKS:
            raise RequestError.method_not_found(method)
        request, known = self._learn(params)
        verdict = await self._verdict(known, request.options)
        if verdict is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        known.refusal = "" if verdict.allow else verdict.reason or "Not allowed."
        meta = {_REFUSAL: known.refusal} if known.refusal else None
        return RequestPermissionResponse(outcome=_outcome(verdict, request.options), field_meta=meta)

    def recall(self, answered: dict[str, Any]) -> None:
        """Know what another worker has answered, and tell what it told."""
        _, known = self._learn(answered["request"])
        known.refusal = str((answered["answer"].get("_meta") or {}).get(_REFUSAL, ""))

    def _learn(self, params: Any) -> tuple[RequestPermissionRequest, Known]:
        request = RequestPermissionRequest.model_validate(params)
        known, events = self._translator.ask(request.tool_call, params["toolCall"])
        for event in events:
            self._tell(event)
        return request, known

    async def _verdict(self, known: Known, options: list[PermissionOption]) -> Verdict | None:
        """Return what the judge says; None when the turn was cancelled meanwhile, as the protocol wants it answered then."""
        if _of_kind(options, "allow_once") is None:
            return _NO_ONCE
        judging = asyncio.create_task(asyncio.to_thread(self._ask, known))
        cancelling = asyncio.create_task(self.cancelled.wait())
        done, _ = await asyncio.wait({judging, cancelling}, return_when=asyncio.FIRST_COMPLETED)
        cancelling.cancel()
        return judging.result() if judging in done and not self.cancelled.is_set() else None

    def _ask(self, known: Known) -> Verdict:
        calls = known.calls
        verdicts = (self._judge(call) for call in calls)
        refused = next((verdict for verdict in verdicts if not verdict.allow), None)
        return refused or (Verdict(True) if calls else _UNKNOWN)


def _outcome(verdict: Verdict, options: list[PermissionOption]) -> AllowedOutcome | DeniedOutcome:
    """Choose for this one time only: what is allowed for good would not ask again."""
    option = _of_kind(options, "allow_once" if verdict.allow else "reject_once")
    if option is None:
        return DeniedOutcome(outcome="cancelled")
    return AllowedOutcome(outcome="selected", option_id=option.option_id)


def _of_kind(options: list[PermissionOption], kind: str) -> PermissionOption | None:
    return next((option for option in options if option.kind == kind), None)
