"""The verbs of governance: stop and lift, decide and remember, write and activate a policy."""

from governance.actions.gates import record_decision
from governance.actions.killing import lift, record_quiet, stop
from governance.actions.policy import activate_policy, ensure_default_policy, write_policy

__all__ = [
    "activate_policy",
    "ensure_default_policy",
    "lift",
    "record_decision",
    "record_quiet",
    "stop",
    "write_policy",
]
