"""A company's own proxy for tests: proxy.py, with a password, on plain HTTP or TLS. It alone knows the names under `.example`."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from proxy.http.proxy import HttpProxyBasePlugin

ROOT = Path(__file__).parents[2]


class Names(HttpProxyBasePlugin):
    """The company's own name lookup: every `.example` is this machine."""

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, None]:
        return ("127.0.0.1", None) if host.endswith(".example") else (None, None)


class CompanyProxy:
    """`url` names it with the password, `log` tells whom it was asked for. `tls` is (certificate, key), as files."""

    def __init__(
        self, place: Path, *, user: str = "", password: str = "", tls: tuple[Path, Path] | None = None
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._log_file, self._port_file = place / "log", place / "port"
        self._credentials = f"{user}:{password}" if user else ""
        self._tls = tls
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> CompanyProxy:
        command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1"]
        command += ["--num-acceptors", "1", "--port-file", str(self._port_file), "--log-file", str(self._log_file)]
        command += ["--plugins", f"{Names.__module__}.{Names.__name__}"]
        if self._credentials:
            command += ["--basic-auth", self._credentials]
        if self._tls:
            command += ["--cert-file", str(self._tls[0]), "--key-file", str(self._tls[1])]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._listens():
            assert self._process.poll() is None and time.monotonic() < deadline, "the company's proxy does not start"
            time.sleep(0.05)
        return self

    def _listens(self) -> bool:
        if not self._port_file.exists() or not self._port_file.read_text().strip():
            return False
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    @property
    def port(self) -> int:
        return int(self._port_file.read_text().split()[0])

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        credentials = f"{self._credentials}@" if self._credentials else ""
        return f"{'https' if self._tls else 'http'}://{credentials}{self.place}"

    @property
    def log(self) -> str:
        return self._log_file.read_text() if self._log_file.exists() else ""
