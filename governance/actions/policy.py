"""Policies: write a wording once, activate it when Cedar's schema has nothing against it."""

from __future__ import annotations

from django.db import connection, transaction

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from governance import events, queries
from governance.cedar import engine
from governance.models import PolicyVersion

_ONE_AT_A_TIME = 0x506F6C696379  # "Policy"
LONGEST_POLICY = 64 * 1024


@transaction.atomic
def write_policy(*, text: str, reason: str, by: Actor) -> PolicyVersion:
    """Keep a wording for good, not yet active; the same wording is one version. Invalid names what Cedar has against it."""
    faults = engine.problems(text) if len(text) <= LONGEST_POLICY else ["It is longer than 64 KiB."]
    if faults or not text.strip():
        raise Invalid(
            "This policy cannot be used.",
            why=" ".join(faults) or "It is empty, so it would refuse everything.",
            next_step="Correct it; the schema in governance/cedar names every fact it may ask for.",
            code="bad_policy",
        )
    version, made = PolicyVersion.objects.get_or_create(
        sha256=PolicyVersion.hash_of(text), defaults={"text": text, "author": by.name, "reason": reason}
    )
    if made:
        journal.record(
            events.POLICY_WRITTEN, by=by, subject=("policy", version.pk), sha256=version.sha256, reason=reason
        )
    return version


@transaction.atomic
def activate_policy(*, version: PolicyVersion, reason: str, by: Actor) -> PolicyVersion:
    """Let Gate 1 ask this version from the commit on; the one before stays as a row and can be activated again."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ONE_AT_A_TIME])
    before = queries.active_policy()
    if before == version:
        return before
    PolicyVersion.objects.filter(active=True).update(active=False)
    PolicyVersion.objects.filter(pk=version.pk).update(active=True)
    version.active = True
    journal.record(
        events.POLICY_ACTIVATED,
        by=by,
        subject=("policy", version.pk),
        before=before.pk if before else None,
        sha256=version.sha256,
        reason=reason,
    )
    return version


@transaction.atomic
def ensure_default_policy(*, by: Actor) -> PolicyVersion:
    """Return the active policy; when there is none yet, the one that ships becomes it."""
    active = queries.active_policy()
    if active is not None:
        return active
    reason = "The policy that ships."
    return activate_policy(version=write_policy(text=engine.DEFAULT_POLICY, reason=reason, by=by), reason=reason, by=by)
