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
        AccountState.ACTIVE: "polled by whoever holds its lease",
        AccountState.REJECTED: "the platform refused the token; waits for a new one",
        AccountState.OFF: "switched off by an operator",
    },
)
