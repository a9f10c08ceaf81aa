"""Which services `make run` keeps alive, in which order they stop, and what their configuration must not tell."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from supervisor.options import ProcessConfig, ServerOptions

from fleet.platform.installation import ROOT, Installation, child_environment, write_addresses
from fleet.platform.logs import LogStream
from fleet.platform.supervision import Supervisor, services


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return Installation(var=tmp_path / "my var 100%", host="127.0.0.1", port=9600)


def configured(here: Installation) -> dict[str, ProcessConfig]:
    """What supervisord itself reads in the configuration, by name of the service."""
    supervisor = Supervisor(here)
    for directory in (here.supervisor, here.logs):
        directory.mkdir(parents=True, exist_ok=True)
    supervisor.configuration.write_text(supervisor._configuration_text(services(here)))
    options = ServerOptions()
    options.configfile = str(supervisor.configuration)
    with contextlib.chdir(here.var):
        options.process_config(do_usage=False)
    return {group.name: group.process_configs[0] for group in options.process_group_configs}


def test_services_stop_from_the_edge_inwards_and_the_database_last(here: Installation) -> None:
    stops = sorted(services(here), key=lambda service: -service.rank)
    assert [service.name for service in stops] == ["gateways", "web", "worker", "runner", "valkey", "postgres"]


def test_only_the_web_process_loads_pages_unless_somebody_names_other_settings(here: Installation) -> None:
    told = {name: program.environment.get("DJANGO_SETTINGS_MODULE") for name, program in configured(here).items()}
    headless = dict.fromkeys(("gateways", "worker", "runner"), "fleet.settings.headless")
    assert told == {"web": "fleet.settings.base", **headless, "valkey": None, "postgres": None}
    named = configured(dataclasses.replace(here, settings="acme.settings"))
    assert {program.environment.get("DJANGO_SETTINGS_MODULE") for program in named.values()} == {"acme.settings", None}


def test_named_servers_replace_the_embedded_ones(tmp_path: Path) -> None:
    here = Installation(
        var=tmp_path, host="127.0.0.1", port=1, database_url="postgresql://db/fleet", redis_url="redis://r/0"
    )
    names = {service.name for service in services(here)}
    assert names == {"runner", "worker", "web", "gateways"}


def test_a_service_waits_for_the_schema_and_then_becomes_its_program(tmp_path: Path) -> None:
    stamp, program = tmp_path / "schema", tmp_path / "program.py"
    program.write_text("import sys; print('works with', sys.argv[1], __name__)")
    (tmp_path / "settings.py").write_text("SECRET_KEY = 'x'\nprint('loaded', flush=True)\nUSE_TZ = True")
    service = subprocess.Popen(
        [sys.executable, "-m", "fleet.platform.held", str(stamp), str(program), "this"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "settings"},
    )  # fmt: skip
    assert service.stdout.readline() == "loaded\n"
    assert service.poll() is None
    stamp.touch()
    assert service.communicate(timeout=60)[0] == "works with this __main__\n"


def test_a_service_whose_schema_is_there_becomes_its_module_at_once(tmp_path: Path) -> None:
    stamp = tmp_path / "schema"
    stamp.touch()
    command = [sys.executable, "-m", "fleet.platform.held", str(stamp), "-m", "json.tool", "--help"]
    assert "usage" in subprocess.check_output(command, text=True, cwd=ROOT)


def test_spaces_and_percent_signs_in_paths_survive_the_configuration(here: Installation) -> None:
    programs = configured(here)
    assert str(here.var / "postgres" / "data") in shlex.split(programs["postgres"].command)
    assert programs["web"].stdout_logfile == "log/web.log"
    assert programs["web"].directory == str(ROOT)


def test_no_secret_is_in_the_configuration_or_in_an_argument(here: Installation) -> None:
    valkey = here.valkey()
    valkey.prepare()
    password = valkey.url.split("@")[0].rsplit(":", 1)[1]
    text = Supervisor(here)._configuration_text(services(here))
    assert password not in text
    told = {name for program in configured(here).values() for name in program.environment}
    assert told == {"DJANGO_SETTINGS_MODULE"}


def test_every_stop_is_bounded_and_asks_before_it_kills(here: Installation) -> None:
    programs = configured(here)
    assert all(0 < program.stopwaitsecs <= 30 for program in programs.values())
    assert programs["postgres"].stopsignal == signal.SIGINT
    assert programs["worker"].stopsignal == signal.SIGTERM


def test_the_addresses_are_left_for_the_command_line_in_a_private_file(here: Installation) -> None:
    here.var.mkdir()
    write_addresses(here, database_url="postgresql://a/b", redis_url="redis://c/0")
    path = here.var / "servers.env"
    assert path.read_text() == "DATABASE_URL=postgresql://a/b\nREDIS_URL=redis://c/0\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_services_get_the_decided_addresses_and_the_projects_programs(here: Installation) -> None:
    environment = child_environment(here, database_url="postgresql://a/b", redis_url="redis://c/0")
    assert environment["DATABASE_URL"] == "postgresql://a/b"
    assert environment["FLEET_VAR"] == str(here.var)
    assert environment["PATH"].split(":")[0].endswith("bin")


def test_logs_are_followed_line_by_line_after_the_name_of_their_service(tmp_path: Path) -> None:
    web, worker = tmp_path / "web.log", tmp_path / "worker.log"
    web.write_text("from before\n")
    stream = LogStream({"web": web, "worker": worker}, coloured=False)
    with web.open("a") as file:
        file.write("one\ntwo\nhalf a li")
    worker.write_text("first\n")
    assert list(stream.new_lines()) == ["web    | one", "web    | two", "worker | first"]
    with web.open("a") as file:
        file.write("ne\n")
    assert list(stream.new_lines()) == ["web    | half a line"]


def test_a_rotated_log_is_followed_into_its_successor(tmp_path: Path) -> None:
    web = tmp_path / "web.log"
    stream = LogStream({"web": web}, coloured=False)
    web.write_text("old\n")
    assert list(stream.new_lines()) == ["web | old"]
    web.rename(tmp_path / "web.log.1")
    web.write_text("a new and longer line\n")
    assert list(stream.new_lines()) == ["web | a new and longer line"]


def test_broken_bytes_and_endless_lines_do_not_stop_the_stream(tmp_path: Path) -> None:
    web = tmp_path / "web.log"
    stream = LogStream({"web": web}, coloured=True)
    web.write_bytes(b"\xff\xfe\n" + b"x" * 200_000 + b"\nafter\n")
    lines = list(stream.new_lines())
    assert lines[-1].endswith("after")
    assert max(map(len, lines)) < 100_000
