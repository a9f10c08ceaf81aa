"""The verbs of conversations. `receive` and `process` are the way in, `admit` the only door to an execution, the outbox the way out."""

from conversations.actions.admission import admit
from conversations.actions.intake import Intake, process
from conversations.actions.lanes import advance, refuse_queued
from conversations.actions.outbox import (
    claim_deliveries,
    deliver,
    delivered,
    delivery_failed,
    delivery_receipt,
    delivery_unknown,
    resend,
    send_anyway,
)
from conversations.actions.parking import hand_on, wake
from conversations.actions.places import set_busy_mode
from conversations.actions.receiving import Received, accept, receive
from conversations.actions.sessions import start_anew
from conversations.actions.silencing import silence
from conversations.actions.steering import goes_on_waiting, join_running
from conversations.actions.sweeping import sweep
from conversations.actions.turns import begin_turn, close_turn, stop_conversation, stop_turn

__all__ = [
    "Intake",
    "Received",
    "accept",
    "admit",
    "advance",
    "begin_turn",
    "claim_deliveries",
    "close_turn",
    "deliver",
    "delivered",
    "delivery_failed",
    "delivery_receipt",
    "delivery_unknown",
    "goes_on_waiting",
    "hand_on",
    "join_running",
    "process",
    "receive",
    "refuse_queued",
    "resend",
    "send_anyway",
    "set_busy_mode",
    "silence",
    "start_anew",
    "stop_conversation",
    "stop_turn",
    "sweep",
    "wake",
]
