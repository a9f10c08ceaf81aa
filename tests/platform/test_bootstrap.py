"""`make setup` on a bare machine: one verified file from the index, then nothing more until the lock changes."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FAKE_UV = """#!/bin/sh
echo "$@ env=$UV_PROJECT_ENVIRONMENT" >> "$(dirname "$0")/calls"
mkdir -p .venv/bin && touch .venv/bin/python
"""
FAILING_UV = """#!/bin/sh
echo "error: Failed to download thing==1.0
  cause: Failed to fetch
  cause: Connection refused
hint: thing was wanted" >&2
exit 2
"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and keeps its own log off stderr, where the sentences under test are."""

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Path]:
    """A package index on loopback; what is put into the directory is what it has."""
    served = tmp_path / "served"
    (served / "simple" / "uv").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(served)))
    Thread(target=server.serve_forever, daemon=True).start()
    served.joinpath("url").write_text(f"http://127.0.0.1:{server.server_port}/simple")
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/bootstrap.py, at work in an empty project."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "project"
    root.mkdir()
    (root / "uv.lock").write_text("locked")
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "VENV", root / ".venv")
    monkeypatch.setattr(module, "TOOLS", root / ".tools")
    monkeypatch.setattr(module, "UV", root / ".tools" / "uv")
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:1/simple")
    return module


def publish(
    index: Path, module: ModuleType, script: str, monkeypatch: pytest.MonkeyPatch, *, page: str = "html"
) -> None:
    """Put a wheel with `script` as its uv on the index, and pin it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as wheel:
        wheel.writestr(f"uv-{module.UV_VERSION}.data/scripts/uv", script)
    name, _ = module.uv_wheel()
    (index / "packages" / "3d").mkdir(parents=True, exist_ok=True)
    (index / "packages" / "3d" / name).write_bytes(data.getvalue())
    address = f"../../packages/3d/{name}"
    listed = {"core-metadata": True, "filename": name, "hashes": {"sha256": "0"}, "url": address}  # in PyPI's order
    text = f'<a href="{address}#sha256=0">{name}</a>' if page == "html" else json.dumps({"files": [listed]})
    (index / "simple" / "uv" / "index.html").write_text(text)
    pin = (name.removeprefix(f"uv-{module.UV_VERSION}-py3-none-").removesuffix(".whl"), _sha256(data.getvalue()))
    monkeypatch.setattr(module, "UV_WHEELS", dict.fromkeys(module.UV_WHEELS, pin))
    monkeypatch.setenv("UV_INDEX_URL", (index / "url").read_text())


def calls(module: ModuleType) -> list[str]:
    return (module.TOOLS / "calls").read_text().splitlines()


@pytest.mark.parametrize("page", ["html", "json"])
def test_an_empty_machine_is_set_up_from_the_lock(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch, page=page)
    assert bootstrap.main([]) == 0
    (call,) = calls(bootstrap)
    assert call.startswith("sync --frozen --python ")
    assert "--no-dev" in call
    assert call.endswith(f"env={bootstrap.VENV}")


def test_a_second_setup_asks_nobody_and_says_nothing(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch)
    bootstrap.main([])
    capsys.readouterr()
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:1/simple")
    bootstrap.UV.unlink()
    assert bootstrap.main([]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_changed_lock_is_installed_and_keeps_what_the_tests_need(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch)
    bootstrap.main([])
    bootstrap.main(["--dev"])
    (bootstrap.ROOT / "uv.lock").write_text("locked anew")
    bootstrap.main([])
    assert ["--no-dev" in call for call in calls(bootstrap)] == [True, False, False]


def test_a_venv_that_lost_its_interpreter_is_made_again(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch)
    bootstrap.main([])
    (bootstrap.VENV / "bin" / "python").unlink()
    bootstrap.main([])
    assert len(calls(bootstrap)) == 2


def test_a_file_with_another_hash_is_not_used(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch)
    name, _ = bootstrap.uv_wheel()
    (index / "packages" / "3d" / name).write_bytes(b"something else")
    assert bootstrap.main([]) == 1
    assert "is not the file it should be" in one_sentence(capsys)
    assert not bootstrap.UV.exists()


def test_an_index_without_the_wheel_is_named(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, bootstrap, FAKE_UV, monkeypatch)
    (index / "simple" / "uv" / "index.html").write_text("<html>uv-0.0.1.tar.gz</html>")
    assert bootstrap.main([]) == 1
    sentence = one_sentence(capsys)
    assert "/simple/uv/ has no uv-" in sentence
    assert "UV_INDEX_URL" in sentence


def test_no_network_is_said_without_showing_the_indexs_password(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    password = "hidden"
    monkeypatch.setenv("UV_INDEX_URL", f"http://me:{password}@127.0.0.1:1/simple")
    assert bootstrap.main([]) == 1
    sentence = one_sentence(capsys)
    assert "cannot be fetched" in sentence
    assert password not in sentence


def test_a_package_that_cannot_be_fetched_is_named_with_the_reason(
    bootstrap: ModuleType, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, bootstrap, FAILING_UV, monkeypatch)
    assert bootstrap.main([]) == 1
    assert "(Failed to download thing==1.0: Connection refused)" in capsys.readouterr().err
    assert not (bootstrap.VENV / "fleet-setup.json").exists()


def test_an_unsupported_python_is_told_which_ones_are(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON_FROM", (4, 0))
    assert bootstrap.main([]) == 1
    assert "Python 3.11, 3.12 or 3.13" in one_sentence(capsys)


def test_an_unsupported_machine_is_told(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "vax")
    assert bootstrap.main([]) == 1
    assert "Linux vax" in one_sentence(capsys)


def test_the_cache_stays_in_the_project_when_home_cannot_be_written(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert bootstrap.uv_environment()["UV_CACHE_DIR"] == str(bootstrap.TOOLS / "uv-cache")


def test_a_home_that_can_be_written_keeps_its_cache(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert "UV_CACHE_DIR" not in bootstrap.uv_environment()


def test_the_pinned_wheels_are_files_with_a_whole_hash(bootstrap: ModuleType) -> None:
    assert all(len(sha256) == 64 and tag for tag, sha256 in bootstrap.UV_WHEELS.values())
    assert os.access(ROOT / "tools" / "bootstrap.py", os.R_OK)


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Installing")]
    assert len(lines) == 1
    return lines[0]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
