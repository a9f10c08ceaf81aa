"""The runner: every duty on its own clock, none able to stop another, and a sign of life that cannot lie."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from django.db import OperationalError, connection

from fleet.kernel import journal
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalSeal
from fleet.runner import Duty, SignOfLife, duties, run, runners_alive
from tests.architecture.source import ROOT
from tests.gateways.running import database_url

pytestmark = pytest.mark.usefixtures("transactional_db")


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_duty_that_fails_keeps_no_other_from_its_work() -> None:
    stop, done = threading.Event(), threading.Semaphore(0)
    broken = Duty("broken", 0.001, lambda: 1 / 0)
    working = Duty("working", 0.001, done.release)
    thread = threading.Thread(target=run, args=[[broken, working], stop], kwargs={"every_seconds": 0.01})

    thread.start()
    for _ in range(20):
        assert done.acquire(timeout=30)
    stop.set()
    thread.join(30)

    assert not thread.is_alive()


def test_a_duty_works_again_after_the_database_was_away() -> None:
    answers = iter([OperationalError("away"), None])

    def work() -> None:
        if error := next(answers):
            raise error

    duty = Duty("sometimes", 1.0, work)
    duty.do()
    assert duty.failing
    duty.do()
    assert not duty.failing


def test_a_duty_gives_its_connection_back() -> None:
    seen: list[object] = []

    def read() -> None:
        JournalSeal.objects.count()
        seen.append(connection.connection)

    def do() -> None:
        Duty("reads", 1.0, read).do()
        seen.append(connection.connection)

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()

    during, afterwards = seen
    assert during is not None
    assert afterwards is None


def test_the_sign_of_life_ends_while_a_duty_is_stuck() -> None:
    stop = threading.Event()
    duty = Duty("hangs", 0.01, lambda: stop.wait())
    thread = threading.Thread(target=run, args=[[duty], stop], kwargs={"every_seconds": 0.01})
    thread.start()
    try:
        wait_for(lambda: runners_alive() == 1)
        duty.last_round -= 1000
        wait_for(lambda: runners_alive() == 0)
    finally:
        stop.set()
        thread.join(30)


def test_the_sign_of_life_comes_back_after_its_connection_was_cut() -> None:
    sign = SignOfLife()
    sign.show()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1")
    wait_for(lambda: runners_alive() == 0)

    sign.show()  # finds out
    sign.show()

    assert runners_alive() == 1
    sign.hide()


def test_every_duty_runs_on_an_empty_house() -> None:
    for duty in duties():
        duty.do()
        assert not duty.failing, duty.name


def test_the_process_seals_the_journal_and_ends_when_it_is_told_to() -> None:
    journal.record("test.thing.happened", by=Actor.system("test"), subject=("test", 1))
    environment = {
        "DATABASE_URL": database_url(),
        "PATH": "/usr/bin:/bin",
        "DJANGO_SETTINGS_MODULE": "fleet.settings.test",
    }

    process = subprocess.Popen([sys.executable, ROOT / "manage.py", "runner"], env=environment, cwd=ROOT)
    try:
        wait_for(lambda: JournalSeal.objects.exists() and runners_alive() == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    wait_for(lambda: runners_alive() == 0)  # PostgreSQL sees the end of a connection a moment later
