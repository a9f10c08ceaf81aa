"""The walls around every CLI that a provider spawns: what it sees of the machine, and whom it reaches on the network."""

from execution.sandbox.enclosing import Enclosed, Needs, enclose, is_enclosed, own_directories, scratch
from execution.sandbox.plain import open_plain
from execution.sandbox.presence import check_enclosable, missing, proxy, reason_for_none
from execution.sandbox.refusals import Refused, taken_refusals
from execution.sandbox.servers import Servers, arrange
from execution.sandbox.troubles import Trouble, forget, forget_old, trouble_of

__all__ = [
    "Enclosed",
    "Needs",
    "Refused",
    "Servers",
    "Trouble",
    "arrange",
    "check_enclosable",
    "enclose",
    "forget",
    "forget_old",
    "is_enclosed",
    "missing",
    "open_plain",
    "own_directories",
    "proxy",
    "reason_for_none",
    "scratch",
    "taken_refusals",
    "trouble_of",
]
