"""Why a provider turn ended, and what follows by itself: one table for all providers, from typed evidence.

A provider translates what its program reports in fields into `Evidence` — never the wording of a message — and `judge` finds the
first row of `TABLE` that fits: the cause, its outcome class and a sentence with a next step. Beside each cause stands its `Policy`:
whether the next provider of the bot's chain takes the turn, when the login is left alone, and how often it is tried again.
Nothing follows by itself once a tool ran or a text was shown.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

from execution.states import Cause, OutcomeClass


@dataclass(frozen=True, slots=True)
class Vendor:
    """How the sentences call a provider: its name, its account, and what to do about a key or a model that it refuses."""

    name: str
    account: str
    key: str
    model: str = "Choose another model for the bot."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a provider's program reported about the end of a turn; empty where it said nothing.

    `words` are the codes it used: the type and code of an error, the reason for which it stopped, the kind of its result.
    `limited` says that the login's own window is used up, `retry_at` when the provider wants to be asked again. `place` is the
    destination that was not reached and `why` says why, after a colon, where `UNREACHED` or `REFUSED` is among the words.
    """

    words: tuple[str, ...] = ()
    status: int = 0
    limited: bool = False
    retry_at: dt.datetime | None = None
    place: str = ""
    why: str = ""


# Words of our own, for what the proxy of the bot's sandbox saw: the provider's program knows only that something went wrong.
UNREACHED, REFUSED = "egress_unreached", "egress_refused"


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows by itself on an end that had no side effect.

    `fails_over`: the next provider of the chain takes the turn. `opens_after`: how many such ends in a row shut the login (0: none
    does), until the moment the provider named, else for `pause`, which doubles up to `longest_pause`. `retries`: how often a turn
    that nobody else can take comes again. `believes`: how far ahead a moment may be that the provider names. `begins_anew`: no provider
    was asked, so the turn is admitted again at once.
    """

    fails_over: bool = False
    opens_after: int = 0
    pause: dt.timedelta = dt.timedelta()
    longest_pause: dt.timedelta = dt.timedelta()
    retries: int = 0
    believes: dt.timedelta = dt.timedelta()
    begins_anew: bool = False

    def pause_after(self, failures: int) -> dt.timedelta:
        """Return how long to wait after that many failures in a row."""
        doublings = min(max(failures - max(self.opens_after, 1), 0), 16)
        doubled: dt.timedelta = self.pause * 2**doublings
        return min(doubled, self.longest_pause)


def _minutes(number: float) -> dt.timedelta:
    return dt.timedelta(minutes=number)


NOTHING = Policy()
# What is told of a provider that waits before it asks again.
_WAITING = {
    Cause.USAGE_LIMIT: "{name} asks us to wait",
    Cause.RATE_LIMIT: "{name} asks us to wait",
    Cause.OVERLOADED: "{name} is overloaded",
    Cause.SERVER_FAULT: "{name}'s servers have a fault",
    Cause.NETWORK: "This machine cannot reach {place}",
}
_HOUR, _DAY, _LONGEST_WINDOW = (
    _minutes(60),
    _minutes(24 * 60),
    _minutes(8 * 24 * 60),
)  # the windows of logins take a week at most
_BUSY = Policy(
    fails_over=True, opens_after=3, pause=_minutes(0.5), longest_pause=_minutes(5), retries=2, believes=_HOUR
)
_UNTIL_PUT_RIGHT = Policy(
    fails_over=True, opens_after=1, pause=_minutes(10), longest_pause=_minutes(360), retries=5, believes=_DAY
)

POLICIES: dict[Cause, Policy] = {
    Cause.USAGE_LIMIT: Policy(
        fails_over=True,
        opens_after=1,
        pause=_minutes(15),
        longest_pause=_minutes(240),
        retries=5,
        believes=_LONGEST_WINDOW,
    ),
    Cause.RATE_LIMIT: Policy(
        fails_over=True, opens_after=1, pause=_minutes(1), longest_pause=_minutes(15), retries=5, believes=_DAY
    ),
    Cause.BILLING: _UNTIL_PUT_RIGHT,
    Cause.AUTH: _UNTIL_PUT_RIGHT,
    Cause.OVERLOADED: _BUSY,
    Cause.SERVER_FAULT: _BUSY,
    Cause.UNREACHABLE: _BUSY,
    Cause.NETWORK: _BUSY,
    Cause.POLICY: Policy(fails_over=True),  # the bot's, so that no login is shut for it
    Cause.HOLD_ENDED: Policy(begins_anew=True, retries=5),
}


def policy_of(cause: str) -> Policy:
    """Return what follows by itself on this cause; nothing for one without a policy."""
    return POLICIES.get(Cause(cause), NOTHING) if cause else NOTHING


def believable(at: dt.datetime | None, cause: str, *, now: dt.datetime) -> dt.datetime | None:
    """Return the moment that a provider named, unless it is over or too far ahead for its cause: then our own pauses count."""
    return at if at is not None and now < at <= now + policy_of(cause).believes else None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. It fits when any of its words or statuses was said; a row that names none fits everything."""

    cause: Cause
    outcome: OutcomeClass
    sentence: str
    words: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    limited: bool = False

    def fits(self, evidence: Evidence) -> bool:
        """Return whether this row explains the evidence."""
        if self.limited:
            return evidence.limited
        if not self.words and not self.statuses:
            return True
        return evidence.status in self.statuses or not set(self.words).isdisjoint(evidence.words)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the table says of one end. `retry_at` is empty unless waiting for it helps; `waiting` tells of it while it may still pass."""

    cause: Cause
    outcome: OutcomeClass
    sentence: str
    retry_at: dt.datetime | None = None
    waiting: str = ""


_SHORTER = "Start a new conversation with /new, or send less at once."
_LATER = "Try again in a minute."

# The order decides. Words of all vendors stand side by side: what a word means does not depend on who says it.
TABLE = (
    Row(
        Cause.STEPS,
        OutcomeClass.LIMIT,
        "It needed more steps than this bot may take in one turn. Ask it to go on, or raise the bot's limit of turns.",
        words=("error_max_turns", "max_turn_requests", "too_many_steps"),
    ),
    Row(
        Cause.INTERRUPTED,
        OutcomeClass.STOPPED,
        "Stopped.",
        words=("aborted_streaming", "aborted_tools", "interrupted", "cancelled"),
    ),
    Row(
        Cause.NETWORK,
        OutcomeClass.ERROR,
        "This machine cannot reach {place}: {why}. Nothing is wrong with your message; an administrator looks at the machine's network, "
        "name lookup, firewall and proxy (HTTPS_PROXY).",
        words=(UNREACHED,),
    ),
    Row(
        Cause.POLICY,
        OutcomeClass.ERROR,
        "The bot's network policy does not let it reach {place}, which it needs to answer: {why}. An administrator can allow it.",
        words=(REFUSED,),
    ),
    Row(
        Cause.TOO_LONG,
        OutcomeClass.CONTEXT_FULL,
        f"This conversation has grown longer than the model can read. {_SHORTER}",
        words=("prompt_too_long", "context_window_exceeded", "contextWindowExceeded", "context_length_exceeded"),
    ),
    Row(
        Cause.TOO_LONG,
        OutcomeClass.CONTEXT_FULL,
        f"The message is larger than the model's API takes. {_SHORTER}",
        statuses=(413,),
    ),
    Row(
        Cause.RUN_BUDGET,
        OutcomeClass.BUDGET,
        "The budget of this run is used up.",
        words=("error_max_budget_usd",),
    ),
    Row(
        Cause.BILLING,
        OutcomeClass.LIMIT,
        "{account} has no credit left. Top it up at the provider; nothing is wrong with your message.",
        words=("billing_error", "insufficient_quota", "billing_hard_limit_reached"),
        statuses=(402,),
    ),
    Row(
        Cause.USAGE_LIMIT,
        OutcomeClass.LIMIT,
        "{account} has reached its usage limit. Try again when the limit starts anew.",
        limited=True,
    ),
    Row(
        Cause.USAGE_LIMIT,
        OutcomeClass.LIMIT,
        "{account} has used up its limit or its credit. Top it up, or try again when the limit starts anew.",
        words=("usageLimitExceeded", "sessionBudgetExceeded"),
    ),
    Row(
        Cause.RATE_LIMIT,
        OutcomeClass.LIMIT,
        f"{{account}} is sending too much at the moment. {_LATER}",
        words=("rate_limit", "rateLimitExceeded"),
        statuses=(429,),
    ),
    Row(
        Cause.AUTH,
        OutcomeClass.AUTH,
        "{name} does not let our key or login do this: it may lack the permission, or its account be blocked or out of credit. {key}",
        statuses=(403,),
    ),
    Row(
        Cause.AUTH,
        OutcomeClass.AUTH,
        "{name} does not accept our key or login. {key}",
        words=("authentication_failed", "oauth_org_not_allowed", "unauthorized"),
        statuses=(401,),
    ),
    Row(
        Cause.MODEL,
        OutcomeClass.ERROR,
        "{name} does not know this bot's model, or our account may not use it. {model}",
        words=("model_not_found",),
        statuses=(404,),
    ),
    Row(
        Cause.OVERLOADED,
        OutcomeClass.OVERLOAD,
        f"{{name}} is overloaded at the moment. {_LATER}",
        words=("overloaded", "overloaded_error", "serverOverloaded", "flexUnavailable"),
        statuses=(503, 529),
    ),
    Row(
        Cause.SERVER_FAULT,
        OutcomeClass.OVERLOAD,
        f"{{name}}'s servers had a fault. {_LATER}",
        words=("server_error", "internalServerError"),
        statuses=(500, 502, 504),  # and any other of a server: see `judge`
    ),
    Row(
        Cause.SAFETY,
        OutcomeClass.ERROR,
        "{name}'s safety rules do not allow this request. Say it differently, or give it to another bot.",
        words=("cyberPolicy", "misalignmentPolicyViolation", "refusal"),
    ),
    Row(
        Cause.DENIALS,
        OutcomeClass.ERROR,
        "Too many of its tool calls were refused, so it gave up. Look at what it asked for, and grant what it may do.",
        words=("tooManyDenials",),
    ),
    Row(
        Cause.SANDBOX,
        OutcomeClass.ERROR,
        "The sandbox for its commands does not work here. An administrator finds more in the worker's log.",
        words=("sandboxError",),
    ),
    Row(
        Cause.MALFORMED,
        OutcomeClass.ERROR,
        "{name} refused the request. Start a new conversation with /new; if it stays, the worker's log has its reason.",
        words=("invalid_request", "badRequest"),
        statuses=(400, 422),
    ),
    Row(
        Cause.UNREACHABLE,
        OutcomeClass.ERROR,
        "{name} could not be reached, or broke off without saying why. Try again; if it stays, an administrator looks at the worker's "
        "network, its certificates (SSL_CERT_FILE) and its log.",
        words=(
            "no_answer",
            "api_error",
            "httpConnectionFailed",
            "responseStreamConnectionFailed",
            "responseStreamDisconnected",
            "responseTooManyFailedAttempts",
        ),
    ),
    Row(Cause.UNKNOWN, OutcomeClass.ERROR, "{name} ended the turn with an error. Please try again."),
)


_NAMED = {status for row in TABLE for status in row.statuses}


def judge(evidence: Evidence, vendor: Vendor) -> Ruling:
    """Return what the first row that fits says of this evidence; the last row explains anything.

    A server's status that no row names, such as the 520 or 522 of a proxy before it, is the plain fault of a server.
    """
    if 500 <= evidence.status < 600 and evidence.status not in _NAMED:
        evidence = replace(evidence, status=500)
    return _ruling(next(row for row in TABLE if row.fits(evidence)), vendor, evidence)


def ruling_of(cause: Cause, vendor: Vendor) -> Ruling:
    """Return what the table says of this cause. Raises StopIteration for one that the worker finds by itself, such as a limit of time."""
    return _ruling(next(row for row in TABLE if row.cause == cause), vendor, Evidence())


def _ruling(row: Row, vendor: Vendor, evidence: Evidence) -> Ruling:
    place, why = evidence.place or f"{vendor.name}'s API", evidence.why or "no more is known"
    told = {"name": vendor.name, "account": vendor.account, "key": vendor.key, "model": vendor.model}
    sentence = row.sentence.format(**told, place=place, why=why)
    waiting = _WAITING.get(row.cause, "{name} gave no usable answer").format(name=vendor.name, place=place)
    waits = policy_of(row.cause).opens_after > 0
    return Ruling(row.cause, row.outcome, sentence, evidence.retry_at if waits else None, waiting)
