"""Whether an installed CLI kept what its provider relies on."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from execution import events
from execution.conformance.running import Result
from execution.models import ProviderCheck
from fleet.kernel import journal
from fleet.kernel.actors import Actor


@transaction.atomic
def record_check(*, provider: str, version: str, results: Sequence[Result], by: Actor) -> ProviderCheck:
    """Write down how the cases of a check ended."""
    told = [{"case": one.case, "kept": one.kept, "sentence": one.sentence} for one in results]
    check = ProviderCheck.objects.create(
        provider=provider, version=version, cases=told, kept=all(one.kept for one in results), by=str(by)
    )
    failed = [one.case for one in results if not one.kept]
    journal.record(
        events.PROVIDER_CHECKED, by=by, subject=("provider", provider), version=version, cases=len(told), failed=failed
    )
    return check
