"""The states of a bot, and the kinds of text and grant it carries."""

from django.db.models import TextChoices

from fleet.kernel.transitions import Machine


class IdentityState(TextChoices):
    """Where a bot stands in its working life."""

    DRAFT = "draft"
    ACTIVE = "active"
    PAUSED = "paused"
    RETIRED = "retired"


IDENTITY = Machine(
    noun="identity",
    initial=IdentityState.DRAFT,
    steps={
        IdentityState.DRAFT: (IdentityState.ACTIVE, IdentityState.RETIRED),
        IdentityState.ACTIVE: (IdentityState.PAUSED, IdentityState.RETIRED),
        IdentityState.PAUSED: (IdentityState.ACTIVE, IdentityState.RETIRED),
        IdentityState.RETIRED: (),
    },
    meaning={
        IdentityState.DRAFT: "being written; takes no messages",
        IdentityState.ACTIVE: "takes messages",
        IdentityState.PAUSED: "refuses messages until an operator resumes it",
        IdentityState.RETIRED: "kept for its history only",
    },
)


class TextKind(TextChoices):
    """What a versioned text is."""

    SOUL = "soul"
    SKILL = "skill"


class ToolDecision(TextChoices):
    """What happens when a bot reaches for a tool."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class NetworkPolicy(TextChoices):
    """Whom a bot's CLI and its tools reach on the network."""

    NONE = "none", "Nobody, not even a provider (mock only)"
    PROVIDER = "provider", "Its provider only"
    ALLOWLIST = "allowlist", "Its provider and the listed hosts"
    OPEN = "open", "Everybody, as this machine does"


class Transport(TextChoices):
    """How an MCP server is spoken to."""

    STDIO = "stdio", "A program that is started"
    HTTP = "http", "An address (streamable HTTP)"
    SSE = "sse", "An address (server-sent events)"


class Effort(TextChoices):
    """How hard a provider should think."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
