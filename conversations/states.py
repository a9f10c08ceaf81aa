"""The states of what is said: inbox rows, turns, deliveries and sessions."""

from django.db.models import TextChoices

from fleet.kernel.transitions import Machine


class ConversationKind(TextChoices):
    """What a conversation is for; each kind has its own lane."""

    CHAT = "chat"
    TASK = "task"
    CRON = "cron"


class BusyMode(TextChoices):
    """What happens to a message that arrives while the bot is busy in this conversation."""

    COLLECT = "collect", "Collect: waiting messages become one next turn"
    FOLLOWUP = "followup", "Follow up: each waiting message becomes its own turn"
    STEER = "steer", "Steer: a message goes into the running turn where its provider confirms it, else it follows up"
    INTERRUPT = "interrupt", "Interrupt: a message stops the running turn and is answered next"


class InboundState(TextChoices):
    """Where a received message stands."""

    RECEIVED = "received"
    TAKEN = "taken"
    ANSWERED = "answered"
    REFUSED = "refused"


INBOUND = Machine(
    noun="inbound_message",
    initial=InboundState.RECEIVED,
    steps={
        InboundState.RECEIVED: (InboundState.TAKEN, InboundState.ANSWERED, InboundState.REFUSED),
        InboundState.TAKEN: (),
        InboundState.ANSWERED: (),
        InboundState.REFUSED: (),
    },
    meaning={
        InboundState.RECEIVED: "stored; the platform may be told; intake has not looked at it yet",
        InboundState.TAKEN: "part of a turn",
        InboundState.ANSWERED: "a command, answered at once",
        InboundState.REFUSED: "refused, with a gate decision and a polite delivery",
    },
)


class TurnState(TextChoices):
    """Where a turn stands."""

    QUEUED = "queued"
    ADMITTED = "admitted"
    RUNNING = "running"
    WAITING = "waiting"
    REPLIED = "replied"
    REFUSED = "refused"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    JOINED = "joined"


_ENDS = (TurnState.REPLIED, TurnState.FAILED, TurnState.STOPPED, TurnState.INTERRUPTED)

TURN = Machine(
    noun="turn",
    initial=TurnState.QUEUED,
    steps={
        TurnState.QUEUED: (TurnState.ADMITTED, TurnState.REFUSED, TurnState.STOPPED, TurnState.JOINED),
        TurnState.ADMITTED: (TurnState.RUNNING, TurnState.QUEUED, *_ENDS),
        TurnState.RUNNING: (TurnState.WAITING, TurnState.QUEUED, *_ENDS),
        TurnState.WAITING: (TurnState.RUNNING, *_ENDS),
        TurnState.REPLIED: (),
        TurnState.REFUSED: (),
        TurnState.FAILED: (),
        TurnState.STOPPED: (),
        TurnState.INTERRUPTED: (),
        TurnState.JOINED: (),
    },
    meaning={
        TurnState.QUEUED: "waits for the lane, or until a login may be used again; may still take more messages",
        TurnState.ADMITTED: "has the lane, a reservation and an execution; takes messages until the spend gate opens",
        TurnState.RUNNING: "the bot is thinking",
        TurnState.WAITING: "a tool call waits for a person",
        TurnState.REPLIED: "answered",
        TurnState.REFUSED: "not admitted; the reason and the next step are stored",
        TurnState.FAILED: "ended without an answer; the sentence says why",
        TurnState.STOPPED: "stopped by a person or the kill switch",
        TurnState.INTERRUPTED: "its worker was lost after money may have been spent",
        TurnState.JOINED: "its message was taken by the turn that was running; that one answers it",
    },
)


class DeliveryState(TextChoices):
    """How far a message to a person got."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    PARTIAL = "partial"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    UNKNOWN = "unknown"


DELIVERY = Machine(
    noun="delivery",
    initial=DeliveryState.PENDING,
    steps={
        DeliveryState.PENDING: (
            DeliveryState.SENDING,
            DeliveryState.SENT,
            DeliveryState.FAILED,
            DeliveryState.SUPPRESSED,
        ),
        DeliveryState.SENDING: (
            DeliveryState.SENT,
            DeliveryState.PENDING,
            DeliveryState.PARTIAL,
            DeliveryState.FAILED,
            DeliveryState.UNKNOWN,
        ),
        DeliveryState.PARTIAL: (DeliveryState.PENDING, DeliveryState.FAILED),
        DeliveryState.UNKNOWN: (DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.FAILED),
        DeliveryState.SENT: (),
        DeliveryState.FAILED: (DeliveryState.PENDING,),
        DeliveryState.SUPPRESSED: (DeliveryState.PENDING,),
    },
    meaning={
        DeliveryState.PENDING: "waits for its gateway; may be tried again after `not_before`",
        DeliveryState.SENDING: "the platform is being called",
        DeliveryState.SENT: "the platform gave a receipt for every part",
        DeliveryState.PARTIAL: "some parts have receipts; the rest was refused",
        DeliveryState.FAILED: "the platform refused it for good, or gave no receipt twice; a person may have it sent again",
        DeliveryState.SUPPRESSED: "withheld on purpose: too old (a person may have it sent), or a progress note that was overtaken",
        DeliveryState.UNKNOWN: "the call began and no receipt came; resent only with a visible mark",
    },
)


# Nothing more happens to these by itself, or nobody knows what did: a person may have them sent again.
UNDELIVERED = (DeliveryState.SUPPRESSED, DeliveryState.FAILED, DeliveryState.PARTIAL, DeliveryState.UNKNOWN)


class DeliveryKind(TextChoices):
    """What is delivered. Only progress may be dropped."""

    ANSWER = "answer"
    NOTICE = "notice"
    PROGRESS = "progress"


class SessionState(TextChoices):
    """Whether the next turn continues this provider session."""

    OPEN = "open"
    ROTATED = "rotated"


SESSION = Machine(
    noun="session",
    initial=SessionState.OPEN,
    steps={SessionState.OPEN: (SessionState.ROTATED,), SessionState.ROTATED: ()},
    meaning={
        SessionState.OPEN: "the next turn resumes it",
        SessionState.ROTATED: "replaced by a child after 4 h idle, three failures or a changed binding; kept for its history",
    },
)


class Author(TextChoices):
    """Who said a message."""

    PERSON = "person"
    BOT = "bot"
    SYSTEM = "system"
