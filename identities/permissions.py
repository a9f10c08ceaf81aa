"""The one permission matrix. Views, API, chat commands, management commands and admin all read it."""

from django.db.models import TextChoices


class Role(TextChoices):
    """What a person is in the company. A person may hold several."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Permission(TextChoices):
    """What can be done, as `<noun>.<verb>`."""

    PUBLIC = "public", "Anybody, signed in or not"
    SIGNED_IN = "signed_in", "Anybody who is signed in"
    FLEET_VIEW = "fleet.view", "See bots, conversations, executions and numbers"
    BOT_TALK = "bot.talk", "Talk to a bot"
    TURN_STOP = "turn.stop", "Stop a running turn"
    DELIVERY_SEND = "delivery.send", "Have a message sent that was withheld or did not arrive"
    FLEET_STOP = "fleet.stop", "Throw the kill switch"
    FLEET_RESUME = "fleet.resume", "Lift the kill switch"
    LOGIN_RESET = "login.reset", "Have a provider's login tried again that is left alone"
    WORKER_STEER = "worker.steer", "Drain a worker, and end a process that waits in it"
    BOT_EDIT = "bot.edit", "Change a bot, its texts and its limits"
    GATEWAY_EDIT = "gateway.edit", "Set gateway tokens"
    BUDGET_EDIT = "budget.edit", "Change budgets and prices"
    APPROVAL_DECIDE = "approval.decide", "Approve or reject"
    PEOPLE_EDIT = "people.edit", "Invite people and change their roles"
    RECORDS_EDIT = "records.edit", "Repair records in Django admin"


_VIEWER = {Permission.PUBLIC, Permission.SIGNED_IN, Permission.FLEET_VIEW}
_OPERATOR = _VIEWER | {
    Permission.BOT_TALK,
    Permission.TURN_STOP,
    Permission.DELIVERY_SEND,
    Permission.FLEET_STOP,
    Permission.FLEET_RESUME,
    Permission.LOGIN_RESET,
    Permission.WORKER_STEER,
}
_APPROVER = _VIEWER | {Permission.BOT_TALK, Permission.APPROVAL_DECIDE, Permission.FLEET_STOP}

MATRIX: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(_VIEWER),
    Role.OPERATOR: frozenset(_OPERATOR),
    Role.APPROVER: frozenset(_APPROVER),
    Role.ADMIN: frozenset(Permission),
}
