"""Asking Cedar, so that every way of not getting a clean answer is a no.

A `forbid` whose condition fails to evaluate is skipped by Cedar, and the answer becomes allow. With the schema passed such a request
has no decision at all. So the schema always goes along, and an error, no decision or too long a thought all mean refuse.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cedarpy

_HERE = Path(__file__).resolve().parent
SCHEMA = (_HERE / "schema.cedarschema").read_text()
DEFAULT_POLICY = (_HERE / "default.cedar").read_text()
# Of this thread's own processor time: a busy machine must not turn into refusals.
LONGEST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Ruling:
    """What Cedar said. `rules` are the `@id`s of the rules that decided; `trouble` says why there was no clean answer."""

    allowed: bool
    rules: tuple[str, ...] = ()
    trouble: str = ""


def ask(
    text: str,
    *,
    principal: str,
    action: str,
    resource: str,
    context: Mapping[str, Any],
    entities: Sequence[dict[str, Any]],
) -> Ruling:
    """Return what the policy `text` says to this request; never raises, and never allows unless Cedar clearly does.

    `principal`, `action` and `resource` are Cedar's own names as `Type::id`; entities are in Cedar's JSON form.
    """
    began = time.thread_time()
    try:
        result = cedarpy.is_authorized(
            {
                "principal": _uid(principal),
                "action": _uid(action),
                "resource": _uid(resource),
                "context": dict(context),
            },
            _policies(text),
            list(entities),
            _schema(),
        )
    except Exception as error:  # whatever the engine cannot digest, it has not allowed
        return Ruling(False, trouble=f"the policy engine failed: {_first_line(error)}")
    took = time.thread_time() - began
    errors = result.diagnostics.errors
    if errors:
        return Ruling(False, trouble=f"a rule could not be evaluated: {_first_line(errors[0])}")
    if result.decision is cedarpy.Decision.NoDecision:
        return Ruling(False, trouble="the policy came to no decision")
    if took > LONGEST_SECONDS:
        return Ruling(False, trouble=f"the policy took {took * 1000:.0f} ms of {LONGEST_SECONDS * 1000:.0f} ms")
    names = result.diagnostics.id_annotations_by_reason
    rules = tuple(sorted(names.get(rule, rule) for rule in result.diagnostics.reasons))
    return Ruling(result.decision is cedarpy.Decision.Allow, rules)


def problems(text: str) -> list[str]:
    """Return why this policy must not be activated: what does not parse, or asks for facts the schema does not have."""
    try:
        return [str(error) for error in cedarpy.validate_policies(text, SCHEMA).errors]
    except ValueError as error:
        return [str(error)]


def entity(name: str, **attributes: Any) -> dict[str, Any]:
    """Return an entity in Cedar's JSON form; `name` is `Type::id`."""
    return {"uid": _uid(name), "attrs": attributes, "parents": []}


def _uid(name: str) -> dict[str, str]:
    kind, _, identifier = name.partition("::")
    return {"type": kind, "id": identifier}


@lru_cache(maxsize=8)
def _policies(text: str) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str(text)


@lru_cache(maxsize=1)
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(SCHEMA)


def _first_line(error: object) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
