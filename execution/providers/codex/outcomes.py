"""Why a Codex turn failed: one table from typed evidence to an outcome class and a sentence with a next step.

Evidence is what the app-server says in fields: the turn's status, `codexErrorInfo` by its name, the HTTP status in it, and the
error code of the API where Codex hands on the API's JSON. The first row that fits decides; a row fits when every field it names
has one of the named values.
"""

from __future__ import annotations

from dataclasses import dataclass

from execution.states import OutcomeClass


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the app-server reported about the end of a turn; empty where it said nothing."""

    turn: str = ""
    error: str = ""
    status: int = 0
    code: str = ""
    too_many_steps: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    outcome: OutcomeClass
    sentence: str
    turns: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    too_many_steps: bool = False

    def fits(self, evidence: Evidence) -> bool:
        """Return whether everything this row names is so."""
        asked = (
            (self.turns, evidence.turn),
            (self.errors, evidence.error),
            (self.statuses, evidence.status),
            (self.codes, evidence.code),
        )
        fits = all(not named or said in named for named, said in asked)
        return fits and (evidence.too_many_steps or not self.too_many_steps)


_KEY = "Codex does not accept our key. Check OPENAI_API_KEY in .env and restart."
_SHORTER = "Start a new conversation with /new, or send less at once."
_FULL = f"This conversation has grown longer than the model can read. {_SHORTER}"
_MODEL = "OpenAI does not know this bot's model, or our account may not use it. Choose another model, or set FLEET_CODEX_MODEL."
_BUSY = "OpenAI is overloaded at the moment. Try again in a minute."
_FAST = "The OpenAI account is sending too much at the moment. Try again in a minute."

TABLE = (
    Row(
        OutcomeClass.LIMIT,
        "It needed more steps than this bot may take in one turn. Ask it to go on, or raise the bot's limit of turns.",
        too_many_steps=True,
    ),
    Row(OutcomeClass.STOPPED, "Stopped.", turns=("interrupted",)),
    Row(OutcomeClass.CONTEXT_FULL, _FULL, errors=("contextWindowExceeded",)),
    Row(OutcomeClass.CONTEXT_FULL, _FULL, codes=("context_length_exceeded",)),
    Row(OutcomeClass.CONTEXT_FULL, f"The message is larger than the model's API takes. {_SHORTER}", statuses=(413,)),
    Row(
        OutcomeClass.LIMIT,
        "The OpenAI account has used up its limit or its credit. Top it up, or try again when the limit starts anew.",
        errors=("usageLimitExceeded", "sessionBudgetExceeded"),
    ),
    Row(OutcomeClass.LIMIT, _FAST, errors=("rateLimitExceeded",)),
    Row(OutcomeClass.LIMIT, _FAST, statuses=(429,)),
    Row(OutcomeClass.AUTH, _KEY, errors=("unauthorized",)),
    Row(OutcomeClass.AUTH, _KEY, statuses=(401, 403)),
    Row(OutcomeClass.ERROR, _MODEL, statuses=(404,)),
    Row(OutcomeClass.ERROR, _MODEL, codes=("model_not_found",)),
    Row(OutcomeClass.OVERLOAD, _BUSY, errors=("serverOverloaded", "flexUnavailable")),
    Row(OutcomeClass.OVERLOAD, _BUSY, statuses=(503, 529)),
    Row(OutcomeClass.OVERLOAD, "OpenAI's servers had a fault. Try again in a minute.", errors=("internalServerError",)),
    Row(OutcomeClass.OVERLOAD, "OpenAI's servers had a fault. Try again in a minute.", statuses=(500, 502, 504)),
    Row(
        OutcomeClass.ERROR,
        "OpenAI's safety rules do not allow this request. Say it differently, or give it to another bot.",
        errors=("cyberPolicy", "misalignmentPolicyViolation"),
    ),
    Row(
        OutcomeClass.ERROR,
        "Too many of its tool calls were refused, so it gave up. Look at what it asked for, and grant what it may do.",
        errors=("tooManyDenials",),
    ),
    Row(
        OutcomeClass.ERROR,
        "The sandbox for its commands does not work here. An administrator finds more in the worker's log.",
        errors=("sandboxError",),
    ),
    Row(
        OutcomeClass.ERROR,
        "OpenAI refused the request as malformed. Start a new conversation with /new; if it stays, see the worker's log.",
        errors=("badRequest",),
    ),
    Row(
        OutcomeClass.ERROR,
        "OpenAI could not be reached. Check the network and try again.",
        errors=("httpConnectionFailed", "responseStreamConnectionFailed", "responseStreamDisconnected"),
    ),
    Row(OutcomeClass.ERROR, "Codex ended the turn with an error. Please try again."),
)


def judge(evidence: Evidence) -> Row:
    """Return the row that explains this evidence; the last one explains anything."""
    return next(row for row in TABLE if row.fits(evidence))
