"""What stands in the way of a start is said in one sentence that names it and the way out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.platform import preflight
from fleet.platform.embedded import free_port
from fleet.platform.installation import ROOT, Installation
from fleet.platform.preflight import NotReady


def refused(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(NotReady) as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_busy_port_is_named_with_the_variable_that_changes_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} is in use" in (sentence := refused(preflight.check_port, "127.0.0.1", port))
        assert f"FLEET_PORT={port + 1}" in sentence


def test_a_free_port_passes() -> None:
    preflight.check_port("127.0.0.1", free_port())


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    assert "FLEET_HOST" in refused(preflight.check_port, "203.0.113.1", free_port())


@pytest.mark.parametrize("arguments", [["-m", "fleet.platform", "up"], ["manage.py", "check"]])
def test_a_setting_that_nothing_works_with_keeps_everything_from_starting_and_says_so(
    tmp_path: Path, arguments: list[str]
) -> None:
    environment = {**os.environ, "FLEET_VAR": str(tmp_path / "var"), "FLEET_WARM_SECONDS": "0"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    started = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert started.returncode != 0
    assert "FLEET_WARM_SECONDS is “0”: choose a number from 1 on" in started.stderr
    assert "to keep no process, set FLEET_WARM_PROCESSES=0" in started.stderr


@pytest.mark.parametrize("port", ["web", "0", "70000", "-1", ""])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("FLEET_PORT", port)
    with pytest.raises(ValueError, match="FLEET_PORT"):
        Installation.from_environment()


def test_a_nearly_full_disk_is_said_in_megabytes(tmp_path: Path) -> None:
    sentence = refused(preflight.check_disk, free_bytes=120 * 1024**2, directory=tmp_path)
    assert "120 MB" in sentence
    assert "500" in sentence


def test_an_empty_var_becomes_fleets_and_is_closed_to_others(tmp_path: Path) -> None:
    var = tmp_path / "deep" / "var"
    preflight.check_var(var)
    assert json.loads((var / "fleet.json").read_text()) == {"product": "fleet", "format": 1}
    assert var.stat().st_mode & 0o777 == 0o700
    preflight.check_var(var)


def test_keys_made_before_the_first_start_do_not_make_var_foreign(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    preflight.check_var(tmp_path)


def test_a_var_with_the_files_of_another_program_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    assert "holiday.jpg" in refused(preflight.check_var, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"product": "other", "format": 1}', '{"product": "fleet"}'])
def test_a_marker_that_fleet_did_not_write_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    assert "was not written by Fleet" in refused(preflight.check_var, tmp_path)


def test_a_var_of_a_newer_fleet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text('{"product": "fleet", "format": 2}')
    assert "newer Fleet" in refused(preflight.check_var, tmp_path)


def test_a_database_of_another_postgresql_is_refused(tmp_path: Path) -> None:
    preflight.check_var(tmp_path)
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    assert "PostgreSQL 17" in refused(preflight.check_var, tmp_path)


def test_a_var_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_var(tmp_path)
    monkeypatch.setattr(preflight.os, "geteuid", lambda: os.getuid() + 4321)
    assert "belongs to" in refused(preflight.check_var, tmp_path)


def test_a_file_in_the_place_of_var_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    assert "not a directory" in refused(preflight.check_var, tmp_path / "var")


def test_a_user_without_a_name_is_told_that_postgresql_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 4_123_456)
    assert "4123456" in refused(preflight.check_account)


def test_a_database_url_that_leads_nowhere_is_refused_without_its_password() -> None:
    sentence = refused(preflight.check_database, f"postgresql://me:hidden@127.0.0.1:{free_port()}/fleet")
    assert "DATABASE_URL" in sentence
    assert "hidden" not in sentence
