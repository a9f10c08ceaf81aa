"""Letting several threads do the same thing at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from django.db import connection

from fleet.kernel.exceptions import FleetError


def race(*calls: Callable[[], object]) -> Sequence[object]:
    """Run the calls at the same moment in threads of their own; return what each returned or the FleetError it raised.

    Any other exception is raised here, as a deadlock would otherwise go unseen.
    """
    ready = threading.Barrier(len(calls))
    results: list[object] = [None] * len(calls)
    troubles: list[Exception] = []

    def run(index: int, call: Callable[[], object]) -> None:
        try:
            ready.wait(30)
            results[index] = call()
        except FleetError as error:
            results[index] = error
        except Exception as trouble:
            troubles.append(trouble)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()], "they wait for each other"
    if troubles:
        raise troubles[0]
    return results
