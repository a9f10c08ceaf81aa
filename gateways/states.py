"""Platforms and the state of an account on them."""

from django.db.models import TextChoices

from fleet.kernel.transitions import Machine


class Platform(TextChoices):
    """Where people reach bots."""

    TELEGRAM = "telegram"
    WEB = "web"
    API = "api"
    CLI = "cli"


class AccountState(TextChoices):
    """Whether an account is served."""

    ACTIVE = "active"
    REJECTED = "rejected"
    OFF = "off"


ACCOUNT = Machine(
    noun="gateway_account",
    initial=AccountState.ACTIVE,
    steps={
        AccountState.ACTIVE: (AccountState.REJECTED, AccountState.OFF),
        AccountState.REJECTED: (AccountState.ACTIVE, AccountState.OFF),
        AccountState.OFF: (AccountState.ACTIVE,),
    },
    meaning={
        AccountState.ACTIVE: "served by whichever gateway process holds the lease of its token",
        AccountState.REJECTED: "the platform refused the token; waits for a new one, or for another try",
        AccountState.OFF: "switched off by an operator",
    },
)
