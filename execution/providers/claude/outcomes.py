"""Why a Claude turn failed: one table from typed evidence to an outcome class and a sentence with a next step.

Evidence is what the CLI says in fields (`error` of an assistant message, `api_error_status`, `terminal_reason`, `subtype`), never
the wording of a message. The first row that fits decides; a row fits when every field it names has one of the named values.
"""

from __future__ import annotations

from dataclasses import dataclass

from execution.states import OutcomeClass


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the CLI reported about the end of a turn; empty where it said nothing."""

    error: str = ""
    status: int = 0
    reason: str = ""
    subtype: str = ""
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    outcome: OutcomeClass
    sentence: str
    errors: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    subtypes: tuple[str, ...] = ()
    limited: bool = False

    def fits(self, evidence: Evidence) -> bool:
        """Return whether everything this row names is so."""
        asked = (
            (self.errors, evidence.error),
            (self.statuses, evidence.status),
            (self.reasons, evidence.reason),
            (self.subtypes, evidence.subtype),
        )
        return (evidence.limited or not self.limited) and all(not named or said in named for named, said in asked)


INTERRUPTED = ("aborted_streaming", "aborted_tools")
_KEY = "Check ANTHROPIC_API_KEY in .env (or the login named by FLEET_CLAUDE_LOGIN_DIR) and restart."
_SHORTER = "Start a new conversation with /new, or send less at once."

TABLE = (
    Row(OutcomeClass.STOPPED, "Stopped.", reasons=INTERRUPTED),
    Row(
        OutcomeClass.CONTEXT_FULL,
        f"This conversation has grown longer than the model can read. {_SHORTER}",
        reasons=("prompt_too_long", "context_window_exceeded"),
    ),
    Row(OutcomeClass.CONTEXT_FULL, f"The message is larger than the model's API takes. {_SHORTER}", statuses=(413,)),
    Row(
        OutcomeClass.LIMIT,
        "It needed more steps than this bot may take in one turn. Ask it to go on, or raise the bot's limit of turns.",
        subtypes=("error_max_turns",),
    ),
    Row(OutcomeClass.BUDGET, "The budget of this run is used up.", subtypes=("error_max_budget_usd",)),
    Row(
        OutcomeClass.LIMIT,
        "The Claude account has no credit left. Top it up at the provider; nothing is wrong with your message.",
        errors=("billing_error",),
    ),
    Row(
        OutcomeClass.LIMIT,
        "The Claude account has reached its usage limit. Try again when the limit starts anew.",
        limited=True,
    ),
    Row(
        OutcomeClass.LIMIT,
        "The Claude account is sending too much at the moment. Try again in a minute.",
        errors=("rate_limit",),
    ),
    Row(
        OutcomeClass.LIMIT,
        "The Claude account is sending too much at the moment. Try again in a minute.",
        statuses=(429,),
    ),
    Row(
        OutcomeClass.AUTH,
        f"Claude does not accept our key or login. {_KEY}",
        errors=("authentication_failed", "oauth_org_not_allowed"),
    ),
    Row(OutcomeClass.AUTH, f"Claude does not accept our key or login. {_KEY}", statuses=(401, 403)),
    Row(
        OutcomeClass.ERROR,
        "Claude does not know this bot's model, or our account may not use it. Choose another model for the bot.",
        errors=("model_not_found",),
    ),
    Row(OutcomeClass.OVERLOAD, "Claude is overloaded at the moment. Try again in a minute.", statuses=(529, 503)),
    Row(OutcomeClass.OVERLOAD, "Claude is overloaded at the moment. Try again in a minute.", errors=("overloaded",)),
    Row(
        OutcomeClass.OVERLOAD,
        "Claude's servers had a fault. Try again in a minute.",
        statuses=(500, 502, 504),
    ),
    Row(OutcomeClass.OVERLOAD, "Claude's servers had a fault. Try again in a minute.", errors=("server_error",)),
    Row(
        OutcomeClass.ERROR,
        "Claude refused the request as malformed. Start a new conversation with /new; if it stays, see the worker's log.",
        errors=("invalid_request",),
    ),
    Row(OutcomeClass.ERROR, "Claude could not be reached. Check the network and try again.", reasons=("api_error",)),
    Row(OutcomeClass.ERROR, "Claude ended the turn with an error. Please try again."),
)


def judge(evidence: Evidence) -> Row:
    """Return the row that explains this evidence; the last one explains anything."""
    return next(row for row in TABLE if row.fits(evidence))
