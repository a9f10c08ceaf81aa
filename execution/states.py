"""The life of one supervised provider turn."""

from django.db.models import TextChoices

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
    ERROR = "error"
    ENDED = "ended"
