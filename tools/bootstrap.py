#!/usr/bin/env python3
"""Make `.venv` from a bare python3: no pip, no venv module, no root.

Fetches one pinned file, the uv wheel, and lets uv install what uv.lock names. Does nothing, and asks nobody, when that
was done before. `--dev` adds what the tests and checks need.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)

UV_VERSION = "0.13.9"
UV = TOOLS / f"uv-{UV_VERSION}" / "uv"
# (system, machine, C library): tag of the wheel's name, SHA-256 of the wheel. From https://pypi.org/simple/uv/
UV_WHEELS = {
    ("Linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("Linux", "x86_64", "musl"): (
        "musllinux_1_1_x86_64",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("Linux", "aarch64", "glibc"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Linux", "aarch64", "musl"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "arm64", ""): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
    ("Darwin", "x86_64", ""): (
        "macosx_10_12_x86_64",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
}


class SetupFailed(Exception):
    """Setup cannot go on; the text is the one sentence the person needs."""


def main(arguments: list[str]) -> int:
    """Bring `.venv` up to date; 0, or 1 after one sentence on stderr."""
    try:
        set_up(dev="--dev" in arguments)
    except SetupFailed as failure:
        print(f"Fleet is not set up: {failure}", file=sys.stderr)
        return 1
    return 0


def set_up(*, dev: bool) -> None:
    """Install what uv.lock names into `.venv`, unless the stamp says it is there."""
    digest = hashlib.sha256((ROOT / "uv.lock").read_bytes() + UV_VERSION.encode()).hexdigest()
    done = read_stamp()
    if done.get("digest") == digest and (done.get("dev") or not dev):
        return
    check_python()
    try:
        ensure_uv()
        dev = dev or bool(done.get("dev"))  # never take away what the tests need
        sync(dev=dev)
        (VENV / "fleet-setup.json").write_text(json.dumps({"digest": digest, "dev": dev}))
    except PermissionError as error:
        raise SetupFailed(f"{error.filename} cannot be written; run this as the owner of {ROOT}.") from error


def read_stamp() -> dict[str, object]:
    """Return what the last successful setup noted; empty when there was none or its interpreter is gone."""
    stamp = VENV / "fleet-setup.json"
    if not stamp.exists() or not (VENV / "bin" / "python").exists():
        return {}
    try:
        return dict(json.loads(stamp.read_text()))
    except ValueError:
        return {}


def check_python() -> None:
    """Refuse an interpreter that uv.lock was not made for."""
    if not PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        raise SetupFailed(
            f"it needs Python 3.11, 3.12 or 3.13 and this is {platform.python_version()} ({sys.executable}); "
            "name another one with `make PYTHON=/path/to/python3.11`."
        )


def ensure_uv() -> None:
    """Fetch the pinned uv, unless it is there."""
    if UV.exists():
        return
    name, sha256 = uv_wheel()
    data = download(find_in_index(name))
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SetupFailed(f"{name} from {shown(index_url())} is not the file it should be (SHA-256 differs); not used.")
    UV.parent.mkdir(parents=True, exist_ok=True)
    (TOOLS / ".gitignore").write_text("*\n")
    with zipfile.ZipFile(BytesIO(data)) as wheel, tempfile.NamedTemporaryFile(dir=UV.parent, delete=False) as file:
        file.write(wheel.read(f"uv-{UV_VERSION}.data/scripts/uv"))
    Path(file.name).chmod(0o755)
    Path(file.name).replace(UV)


def uv_wheel() -> tuple[str, str]:
    """Return the name and the SHA-256 of the uv wheel for this machine."""
    system, machine = platform.system(), platform.machine()
    libc = ("glibc" if platform.libc_ver()[0] == "glibc" else "musl") if system == "Linux" else ""
    if (system, machine, libc) not in UV_WHEELS:
        raise SetupFailed(f"there is no uv {UV_VERSION} for {system} {machine}; it runs on Linux and macOS, 64 bit.")
    tag, sha256 = UV_WHEELS[system, machine, libc]
    return f"uv-{UV_VERSION}-py3-none-{tag}.whl", sha256


def index_url() -> str:
    """Return the package index this machine is told to use, with a closing slash."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    chosen = next((os.environ[name] for name in names if os.environ.get(name)), "https://pypi.org/simple")
    return chosen.rstrip("/") + "/"


def find_in_index(name: str) -> str:
    """Return the address of a file of the uv project; the index answers in HTML or JSON (PEP 503, PEP 691)."""
    page = index_url() + "uv/"
    text = download(page, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.5").decode(errors="replace")
    # A JSON answer names every file twice, and only one of the two is its address.
    found = re.search(rf'(?:href=|"url"\s*:\s*)"(?P<url>(?:[^"\s]*/)?{re.escape(name)})[#"]', text)
    if found is None:
        raise SetupFailed(f"{shown(page)} has no {name}; name an index that has it in UV_INDEX_URL.")
    return urllib.parse.urljoin(page, str(found["url"]))


def download(url: str, *, accept: str = "*/*") -> bytes:
    """Return what is at `url`; a user name and password in it become a header and are sent to that host only."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": accept, "User-Agent": "fleet-setup"}
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    bare = parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()
    try:
        request = urllib.request.Request(bare)
        for header, value in headers.items():
            request.add_unredirected_header(header, value)
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SetupFailed(
            f"{bare} cannot be fetched ({reason}); check the network, the proxy (HTTPS_PROXY), or name a mirror "
            "in UV_INDEX_URL, and run the command again."
        ) from error


def shown(url: str) -> str:
    """Return `url` as it may be printed: without user name and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()


def sync(*, dev: bool) -> None:
    """Let uv install the locked packages; its own words are shown as they come on a terminal, else only on failure."""
    print("Installing Fleet's packages into .venv (a minute or two the first time) ...", file=sys.stderr, flush=True)
    command = [str(UV), "sync", "--frozen", "--python", sys.executable, *([] if dev else ["--no-dev"])]
    on_terminal = sys.stderr.isatty()
    done = subprocess.run(
        command, cwd=ROOT, env=uv_environment(), text=True, stderr=None if on_terminal else subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        said = "see the lines above" if on_terminal else error_and_cause(done.stderr)
        raise SetupFailed(f"uv could not install the locked packages ({said}); check network and disk, then run again.")


def error_and_cause(said: str) -> str:
    """Return the first and the last of the "error: ... cause: ... cause: ... hint: ..." that uv writes."""
    chain = " ".join(said.split()).partition("error: ")[2].partition(" hint: ")[0].split(" cause: ")
    return ": ".join(dict.fromkeys((chain[0], chain[-1]))) or "uv said nothing"


def uv_environment() -> dict[str, str]:
    """Return uv's environment: this project's .venv, this interpreter, and a cache where one can be written."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment.update(UV_PROJECT_ENVIRONMENT=str(VENV), UV_PYTHON_DOWNLOADS="never")
    # Compiled once here, or by every process at every start where bytecode is not kept (PYTHONDONTWRITEBYTECODE).
    environment.setdefault("UV_COMPILE_BYTECODE", "1")
    environment.setdefault("UV_SYSTEM_CERTS", "1")  # as Python does: a company's proxy has its authority there
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~"))  # noqa: PTH111 - "~" where nobody has a home
    if "UV_CACHE_DIR" not in environment and not os.access(home, os.W_OK):
        environment["UV_CACHE_DIR"] = str(TOOLS / "uv-cache")
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
