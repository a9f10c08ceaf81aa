"""The beginning and the end of a gateway process."""

from __future__ import annotations

from django.db import transaction

from fleet.kernel import clock, journal
from fleet.kernel.actors import Actor
from gateways import events
from gateways.models import GatewayProcess


@transaction.atomic
def start_process(*, by: Actor) -> GatewayProcess:
    """Register the calling process under a new id."""
    process = GatewayProcess.of_this_process()
    process.save(force_insert=True)
    journal.record(events.PROCESS_STARTED, by=by, subject=("gateway_process", process.pk), process=str(process))
    return process


@transaction.atomic
def stop_process(process: GatewayProcess, *, by: Actor) -> None:
    """Note that the process ends in order."""
    if GatewayProcess.objects.filter(pk=process.pk, stopped_at=None).update(stopped_at=clock.db_now()):
        journal.record(events.PROCESS_STOPPED, by=by, subject=("gateway_process", process.pk))
