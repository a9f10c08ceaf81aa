"""Kill orders, gates and what they can say."""

from django.db.models import TextChoices

from fleet.kernel.transitions import Machine


class KillScope(TextChoices):
    """What a kill order reaches."""

    FLEET = "fleet"
    IDENTITY = "identity"
    CONVERSATION = "conversation"
    EXECUTION = "execution"


class KillMode(TextChoices):
    """How hard it stops."""

    DRAIN = "drain", "Drain: nothing new starts, running work finishes"
    STOP = "stop", "Stop: nothing new starts, running processes are killed"


class OrderState(TextChoices):
    """Where a kill order stands."""

    STOPPING = "stopping"
    QUIET = "quiet"
    LIFTED = "lifted"


ORDER = Machine(
    noun="kill_order",
    initial=OrderState.STOPPING,
    steps={
        OrderState.STOPPING: (OrderState.QUIET, OrderState.LIFTED),
        OrderState.QUIET: (OrderState.LIFTED,),
        OrderState.LIFTED: (),
    },
    meaning={
        OrderState.STOPPING: "in force; something it must stop is still alive",
        OrderState.QUIET: "in force; everything it must stop was seen to be gone",
        OrderState.LIFTED: "no longer in force",
    },
)


class Gate(TextChoices):
    """Which question was asked."""

    INTAKE = "intake"
    KILL = "kill"
    IDENTITY = "identity"
    SESSION = "session"
    BUDGET = "budget"
    POLICY = "policy"
    TOOL = "tool"
    QUEUE = "queue"
    ADMITTED = "admitted"


class Outcome(TextChoices):
    """What the gate said."""

    ALLOW = "allow"
    ASK = "ask"
    REFUSE = "refuse"
