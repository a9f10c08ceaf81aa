"""The verbs of gateways: accounts and their tokens, the processes that serve them, and the leases that keep those apart."""

from gateways.actions.accounts import (
    activate,
    introduce,
    note_activity,
    reject,
    report,
    set_token,
    switch_off,
    take_over_tokens,
)
from gateways.actions.leases import LEASE, release_leases, renew_leases, take_lease
from gateways.actions.processes import start_process, stop_process

__all__ = [
    "LEASE",
    "activate",
    "introduce",
    "note_activity",
    "reject",
    "release_leases",
    "renew_leases",
    "report",
    "set_token",
    "start_process",
    "stop_process",
    "switch_off",
    "take_lease",
    "take_over_tokens",
]
