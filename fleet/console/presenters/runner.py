"""Workers, what they run and what they hold ready, as the console shows them."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from fleet.console.presenters.bots import BotName
from fleet.console.statuses import Status


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that is not over; `taken` of its `slots` run something."""

    id: uuid.UUID
    host: str
    pid: int
    version: str
    status: Status
    why: str
    taken: int
    slots: int
    beat_at: dt.datetime
    started_at: dt.datetime
    draining: bool


@dataclass(frozen=True, slots=True)
class LiveRow:
    """An execution that has not ended. `since` is when it was queued, or when its spend gate opened; `why` is what its provider
    waits for, if it does.
    """

    id: int
    bot: BotName
    conversation_id: int | None
    title: str
    provider: str
    model: str
    status: Status
    why: str
    since: dt.datetime
    worker: str


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process that a worker holds. `megabytes` is None until it was weighed."""

    id: uuid.UUID
    bot: BotName
    provider: str
    model: str
    session: str
    status: Status
    pid: int | None
    worker: str
    turns: int
    megabytes: int | None
    weighed_at: dt.datetime | None
    began_at: dt.datetime
    idle_since: dt.datetime
    ending: bool


@dataclass(frozen=True, slots=True)
class RunnerPage:
    """The page; each list with the key that its next page begins after, if there is one. The counts are of everything."""

    workers: tuple[WorkerRow, ...]
    more_workers: int | None
    executions: tuple[LiveRow, ...]
    more_executions: int | None
    processes: tuple[ProcessRow, ...]
    more_processes: int | None
    running: int
    queued: int
    megabytes: int
    counted_at: dt.datetime
