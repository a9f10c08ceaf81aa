"""What a CLI cannot know of its own trouble: whether this machine reaches its provider at all, which the proxy of its sandbox saw."""

from __future__ import annotations

from dataclasses import replace

from execution.outcomes import REFUSED, UNREACHED, Evidence
from execution.sandbox import trouble_of
from execution.sandbox.troubles import POLICY

_OURS = (0, 403, 502, 503, 504)  # what a CLI tells of an answer of the proxy's own: mostly nothing


def with_network(evidence: Evidence, session_id: str) -> Evidence:
    """Return the evidence with what the proxy of this session's sandbox noted, where it can be what the CLI met."""
    trouble = trouble_of(session_id) if session_id and evidence.status in _OURS else None
    if trouble is None:
        return evidence
    word = REFUSED if trouble.kind == POLICY else UNREACHED
    return replace(evidence, words=(word, *evidence.words), place=trouble.place, why=trouble.why)
