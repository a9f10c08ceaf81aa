"""What is said to a bot while it works is handed to the running turn, in a thread of its own: the turn does not wait for it.

The worker's watch calls `look` twice a second and on a hint. What the provider confirmed is written at once. When it refuses, or does
not answer in time, nothing more is handed over, so that the order of what was said stays; the end of the turn decides the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import structlog
from django.db import DatabaseError, InterfaceError, connection

from execution import actions
from execution.models import Execution
from execution.ports import Run, UserText
from execution.providers.steering import Steerable, Steered
from execution.states import EventKind
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Fenced, StateConflict

log = structlog.get_logger(__name__)
LATEST_SECONDS = 2.0  # a hand-over that was held up for longer is not begun: somebody else may have decided meanwhile
END_SECONDS = 10.0  # more than a provider takes to answer


class Steering:
    """The hand-overs of one attempt. `note` writes what the provider confirmed into the turn's events. Methods: any thread."""

    def __init__(self, execution: Execution, *, by: Actor, note: Callable[..., None]) -> None:
        self._execution, self._by, self._note = execution, by, note
        self._run: Run | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen = 0  # how many offers there were when nothing was left to hand over
        self._over = False

    def begin(self, run: Run) -> Run:
        """The turn has begun in this run, which is returned."""
        self._run = run
        return run

    def look(self, *, offered: int) -> None:
        """`offered` messages were offered so far: hand over those that wait, unless that is under way. Returns at once."""
        with self._lock:
            run = self._run
            if run is None or self._over or self._thread is not None or offered <= self._seen:
                return
            name = f"steering:{self._execution.pk}"
            self._thread = threading.Thread(target=self._work, args=(run, offered), name=name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """The turn is over: hand over nothing more, and wait for the answer to what was handed."""
        with self._lock:
            self._over = True
            thread = self._thread
        if thread is not None:
            thread.join(END_SECONDS)

    def _work(self, run: Run, offered: int) -> None:
        try:
            while not self._over and self._hand_one(cast(Steerable, run)):
                pass
            self._seen = offered
        except (Fenced, StateConflict) as error:  # somebody else has decided
            log.info("steering.given_up", execution=self._execution.pk, why=str(error))
        except (DatabaseError, InterfaceError) as error:  # what was handed is decided when the turn ends
            log.warning("steering.database_away", execution=self._execution.pk, error=str(error).splitlines()[:1])
        except Exception:
            log.exception("steering.fault", execution=self._execution.pk)
        finally:
            connection.close()
            with self._lock:
                self._thread = None

    def _hand_one(self, run: Steerable) -> bool:
        """Hand over the next message; False when nothing more is to be handed over now."""
        asked_at = time.monotonic()
        offer = actions.hand(execution=self._execution, by=self._by)
        if offer is None:
            return False
        late = time.monotonic() - asked_at > LATEST_SECONDS
        answer = Steered.REFUSED if late else run.steer(UserText(str(offer.uuid), offer.text))
        if answer is Steered.TAKEN:
            actions.take_offer(execution=self._execution, offer=offer, by=self._by)
            self._note(EventKind.STEERED, text=offer.text)
        elif answer is Steered.REFUSED:
            actions.return_offers(execution=self._execution, by=self._by)
        log.info("steering.answered", execution=self._execution.pk, offer=offer.pk, answer=answer.value)
        return answer is Steered.TAKEN
