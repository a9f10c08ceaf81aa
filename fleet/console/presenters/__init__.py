"""What the console's templates consume: small frozen values, with nothing left to look up."""

from fleet.console.presenters.accounts import AccountPage, GatewayRow, TokenRow
from fleet.console.presenters.bots import BotName, BotPage, BotRow, ChainRow, Runs, ServerRow, Skill, Spend
from fleet.console.presenters.chats import (
    BusyChoice,
    BusyView,
    ChatPage,
    ConversationRow,
    DeliveryView,
    ReceiptView,
    TextPart,
    ToolLine,
    TranscriptItem,
    TurnView,
)
from fleet.console.presenters.kill import KillBadge, KillView, OrderView, ReceiptLine, StopReceipt
from fleet.console.presenters.logins import CaseRow, CheckRow, LoginRow
from fleet.console.presenters.runner import LiveRow, ProcessRow, RunnerPage, WorkerRow

__all__ = [
    "AccountPage",
    "BotName",
    "BotPage",
    "BotRow",
    "BusyChoice",
    "BusyView",
    "CaseRow",
    "ChainRow",
    "ChatPage",
    "CheckRow",
    "ConversationRow",
    "DeliveryView",
    "GatewayRow",
    "KillBadge",
    "KillView",
    "LiveRow",
    "LoginRow",
    "OrderView",
    "ProcessRow",
    "ReceiptLine",
    "ReceiptView",
    "RunnerPage",
    "Runs",
    "ServerRow",
    "Skill",
    "Spend",
    "StopReceipt",
    "TextPart",
    "TokenRow",
    "ToolLine",
    "TranscriptItem",
    "TurnView",
    "WorkerRow",
]
