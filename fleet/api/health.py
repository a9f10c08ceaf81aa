"""Probes: is the process alive, is it ready, and the numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from drf_spectacular.utils import extend_schema
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rest_framework.request import Request

from fleet import observations
from fleet.api.base import ApiView
from fleet.observations import Part

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def healthz(_request: HttpRequest) -> HttpResponse:
    """Answer as long as the process lives; asks nobody."""
    return JsonResponse({"status": "alive"})


def readyz(_request: HttpRequest) -> HttpResponse:
    """Answer 200 when requests can be served: the database answers and has the right schema. Redis and workers only degrade."""
    parts = [observations.database()]
    if parts[0].well:
        parts += [observations.migrations()]
    ready = all(part.well for part in parts)
    parts.append(observations.broker())
    if ready:
        parts.append(observations.workers())
    well = all(part.well for part in parts)
    status = "ready" if ready and well else "degraded" if ready else "not_ready"
    return JsonResponse({"status": status, "parts": _shown(parts)}, status=200 if ready else 503)


def _shown(parts: list[Part]) -> dict[str, dict[str, Any]]:
    """Return what anybody may know: states and ages. Sentences may name hosts, and are for `manage.py status`."""
    return {part.name: {"state": part.state, "age_seconds": part.age_seconds} for part in parts}


class Metrics(ApiView):
    """Numbers for Prometheus, read from the database at each scrape."""

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Return the exposition format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_FleetCollector())
        return HttpResponse(generate_latest(registry), content_type=_TEXT)


class _FleetCollector(Collector):
    """Asks PostgreSQL once per scrape: every process gives the same answer, and none has to remember anything."""

    def collect(self) -> Iterator[Metric]:
        queues = observations.queues()
        depth = GaugeMetricFamily("fleet_waiting", "Rows that wait, by queue.", labels=["queue"])
        for name, number in asdict(queues).items():
            if name != "oldest_waiting_seconds":
                depth.add_metric([name], number)
        yield depth
        oldest = queues.oldest_waiting_seconds or 0.0
        yield GaugeMetricFamily("fleet_oldest_waiting_seconds", "Age of the oldest waiting row.", value=oldest)
        yield GaugeMetricFamily(
            "fleet_live_executions", "Executions that have not ended.", value=observations.live_execution_count()
        )
        turns = GaugeMetricFamily("fleet_turns", "Turns by their present state.", labels=["state"])
        for state, number in observations.turn_counts().items():
            turns.add_metric([state], number)
        yield turns
        yield _parts([observations.workers(), observations.runner(), observations.gateways()])


def _parts(parts: list[Part]) -> Metric:
    up = GaugeMetricFamily("fleet_part_up", "1 when the part was seen to be well.", labels=["part"])
    for part in parts:
        up.add_metric([part.name], float(part.well))
    return up
