"""The verbs of execution, in the order of a life: expect, queue, join, claim, release, record and meter, offer and hand, finish; and
what the sweep does.

Every write of a worker matches id, epoch, owner and the moment of its claim. A write that matches nothing raises Fenced: the
worker must kill what it runs and keep what it has as an orphan result.
"""

from execution.actions.adopting import adopt
from execution.actions.breaking import probe, reset_breaker
from execution.actions.checking import record_check
from execution.actions.claiming import claim, release, requeue, texts_of
from execution.actions.closing import Ending, finish, keep_orphan, note_gone
from execution.actions.confining import tell_refused_connections
from execution.actions.dispatching import HELD, HOME, pass_on, queue_of
from execution.actions.holding import (
    Held,
    adopt_prewarmed,
    note_held,
    note_idle_gone,
    note_process_ended,
    note_weights,
    request_process_end,
    settle_held,
    why_to_end,
)
from execution.actions.mirroring import forget_transcripts, mirror_transcript
from execution.actions.offering import hand, offer, return_offers, take_offer, withdraw
from execution.actions.queueing import expect, join, queue, request_stop
from execution.actions.recording import Written, meter, next_sequence, record_events, written
from execution.actions.recovering import close_as_lost, halted_by
from execution.actions.sweeping import bury_dead_workers, silence, sweep
from execution.actions.workers import beat, register_worker, retire_worker, set_draining

__all__ = [
    "HELD",
    "HOME",
    "Ending",
    "Held",
    "Written",
    "adopt",
    "adopt_prewarmed",
    "beat",
    "bury_dead_workers",
    "claim",
    "close_as_lost",
    "expect",
    "finish",
    "forget_transcripts",
    "halted_by",
    "hand",
    "join",
    "keep_orphan",
    "meter",
    "mirror_transcript",
    "next_sequence",
    "note_gone",
    "note_held",
    "note_idle_gone",
    "note_process_ended",
    "note_weights",
    "offer",
    "pass_on",
    "probe",
    "queue",
    "queue_of",
    "record_check",
    "record_events",
    "register_worker",
    "release",
    "request_process_end",
    "request_stop",
    "requeue",
    "reset_breaker",
    "retire_worker",
    "return_offers",
    "set_draining",
    "settle_held",
    "silence",
    "sweep",
    "take_offer",
    "tell_refused_connections",
    "texts_of",
    "why_to_end",
    "withdraw",
    "written",
]
