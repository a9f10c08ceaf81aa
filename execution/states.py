"""The life of one supervised provider turn."""

import datetime as dt

from django.db.models import TextChoices

from fleet.kernel import clock
from fleet.kernel.transitions import Machine


class ExecutionState(TextChoices):
    """Where an execution stands."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    WAITING_APPROVAL = "waiting_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


UNKNOWN = "unknown"  # the basis of a cost of which nothing is known
AT_LEAST = "at_least"  # the basis of a cost that is not all of it: something was cut off before it was counted

_ENDS = (ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.STOPPED, ExecutionState.LOST)

EXECUTION = Machine(
    noun="execution",
    initial=ExecutionState.QUEUED,
    steps={
        ExecutionState.QUEUED: (ExecutionState.STARTING, ExecutionState.FAILED, ExecutionState.STOPPED),
        ExecutionState.STARTING: (ExecutionState.QUEUED, ExecutionState.RUNNING, *_ENDS),
        ExecutionState.RUNNING: (ExecutionState.WAITING_APPROVAL, *_ENDS),
        ExecutionState.WAITING_APPROVAL: (ExecutionState.RUNNING, *_ENDS),
        ExecutionState.SUCCEEDED: (),
        ExecutionState.FAILED: (),
        ExecutionState.STOPPED: (),
        ExecutionState.LOST: (),
    },
    meaning={
        ExecutionState.QUEUED: "admitted and paid for by a reservation; no worker has it",
        ExecutionState.STARTING: "a worker owns it; its process waits at the spend gate, nothing has been spent",
        ExecutionState.RUNNING: "the spend gate is open: the provider may be spending",
        ExecutionState.WAITING_APPROVAL: "a tool call waits for a person",
        ExecutionState.SUCCEEDED: "ended with an answer",
        ExecutionState.FAILED: "ended without one; the outcome class and sentence say why",
        ExecutionState.STOPPED: "stopped on purpose, and its processes were proven gone",
        ExecutionState.LOST: "its worker vanished after money may have been spent; never repeated by itself",
    },
)

# A worker holds the lease of an execution in these states, and only in these.
LEASED = (ExecutionState.STARTING, ExecutionState.RUNNING, ExecutionState.WAITING_APPROVAL)


class SpendStage(TextChoices):
    """How far the money got (task-engines reference, 2.2)."""

    NONE = "none"
    RESERVED = "reserved"
    RELEASED = "released"
    SETTLED = "settled"
    UNKNOWN = "unknown"


class OutcomeClass(TextChoices):
    """Why an execution ended, in one word."""

    OK = "ok"
    STOPPED = "stopped"
    LIMIT = "limit"
    AUTH = "auth"
    OVERLOAD = "overload"
    CONTEXT_FULL = "context_full"
    BUDGET = "budget"
    GOVERNANCE = "governance"
    TIMEOUT = "timeout"
    ERROR = "error"
    LOST = "lost"


class Cause(TextChoices):
    """What exactly ended an execution: finer than its class, since what follows by itself depends on it."""

    INTERRUPTED = "interrupted", "it was told to stop"
    STEPS = "steps", "the bot's limit of turns"
    TOO_LONG = "too_long", "more than the model can read"
    RUN_BUDGET = "run_budget", "the run's own budget"
    BILLING = "billing", "no credit left"
    USAGE_LIMIT = "usage_limit", "the login's usage limit"
    RATE_LIMIT = "rate_limit", "too much at a time"
    AUTH = "auth", "the key or login was refused"
    MODEL = "model", "a model that is not known"
    OVERLOADED = "overloaded", "the model is overloaded"
    SERVER_FAULT = "server_fault", "a fault of the vendor's servers"
    SAFETY = "safety", "the vendor's safety rules"
    DENIALS = "denials", "too many refused tool calls"
    SANDBOX = "sandbox", "the sandbox does not work"
    MALFORMED = "malformed", "a malformed request"
    UNREACHABLE = "unreachable", "the vendor cannot be reached"
    NETWORK = "network", "this machine's network"
    POLICY = "policy", "the bot's network policy"
    UNKNOWN = "unknown", "an error without a name"
    TIME = "time", "the bot's limit of time"
    SILENCE = "silence", "no sign of life"
    TOOL_CALLS = "tool_calls", "the bot's limit of tool calls"
    OUTPUT = "output", "an endless answer"
    MEMORY = "memory", "the bot's limit of memory"
    LOOP = "loop", "the same tool calls again and again"
    HOLD_ENDED = "hold_ended", "its budgets' hold went back while it waited"


class BreakerState(TextChoices):
    """Whether a login may be used."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


BREAKER = Machine(
    noun="breaker",
    initial=BreakerState.CLOSED,
    steps={
        BreakerState.CLOSED: (BreakerState.OPEN,),
        BreakerState.OPEN: (BreakerState.HALF_OPEN, BreakerState.CLOSED),
        BreakerState.HALF_OPEN: (BreakerState.CLOSED, BreakerState.OPEN),
    },
    meaning={
        BreakerState.CLOSED: "the login is used; overloads in a row are counted",
        BreakerState.OPEN: "the login is left alone until the moment its provider named, or for a pause that doubles",
        BreakerState.HALF_OPEN: "one execution tries it; everybody else waits for what becomes of that one",
    },
)


def is_due(state: str, until: dt.datetime | None) -> bool:
    """Return whether a login in this state may be tried: its moment has come, and nobody tries it yet."""
    return state == BreakerState.OPEN and until is not None and until <= clock.now()


class OfferState(TextChoices):
    """Where a message stands that was offered to a running turn."""

    OFFERED = "offered"
    HANDED = "handed"
    TAKEN = "taken"
    RETURNED = "returned"


OFFER = Machine(
    noun="offer",
    initial=OfferState.OFFERED,
    steps={
        OfferState.OFFERED: (OfferState.HANDED, OfferState.RETURNED),
        OfferState.HANDED: (OfferState.TAKEN, OfferState.RETURNED),
        OfferState.TAKEN: (),
        OfferState.RETURNED: (),
    },
    meaning={
        OfferState.OFFERED: "waits for the worker that runs the turn; the provider knows nothing of it",
        OfferState.HANDED: "is being handed over: only the provider can say now whether the turn has it",
        OfferState.TAKEN: "the provider confirmed that the running turn has it",
        OfferState.RETURNED: "not part of that turn; whoever offered it goes on with it, `doubtful` where nobody could tell",
    },
)


class EventKind(TextChoices):
    """What an execution event tells. Only these are ever shown to a person."""

    STARTED = "started"
    TEXT = "text"
    TOOL_STARTED = "tool_started"
    TOOL_FINISHED = "tool_finished"
    TOOL_DENIED = "tool_denied"
    USAGE = "usage"
    RATE_LIMIT = "rate_limit"
    NOTICE = "notice"
    RETRYING = "retrying"
    STEERED = "steered"
    ERROR = "error"
    ENDED = "ended"
