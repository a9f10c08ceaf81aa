"""A company behind a proxy of its own: a sandbox's proxy goes through it, judges before, and alone knows its password."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from execution.ports import NotPrepared, Prompt
from execution.providers import registry
from execution.states import Cause, OutcomeClass
from fleet.kernel import clock
from fleet.kernel.masking import mask, register
from fleet.kernel.outgoing import BadProxy, Outgoing
from identities.states import NetworkPolicy
from tests.emulators.model import ModelEmulator
from tests.execution.company_proxy import CompanyProxy
from tests.execution.running import Run, eventually, run, table
from tests.execution.test_sandbox import CONNECT, GET, inside, origin, prompt, with_network
from tests.factories import execution as made

__all__ = ["origin", "prompt", "run", "table"]
pytestmark = pytest.mark.timeout(120)
PASSWORD = "pass-word-7"
Outside = Callable[..., CompanyProxy]


@pytest.fixture
def company(tmp_path: Path, settings: Any) -> Iterator[Outside]:
    """Begin a proxy, and let it be what Fleet's environment names."""
    with ExitStack() as stack:

        def begin(*, no: str = "", ca: Path | None = None, known: bool = True, **proxy: Any) -> CompanyProxy:
            one = stack.enter_context(CompanyProxy(tmp_path / "company", **proxy))
            url = one.url if known else one.url.replace(PASSWORD, "another-one")
            named = {"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": no, "SSL_CERT_FILE": str(ca or "")}
            settings.FLEET_OUTGOING = Outgoing.read(named)
            return one

        yield begin


def outside(origin: str) -> tuple[str, str]:
    """Return a web server's place under a name that only the company's proxy knows, and the address of an API there."""
    place = f"web.example:{origin.partition(':')[2]}"
    return place, f"http://{place}"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The company's authority, which vouches for one certificate: this machine's and api.example's (see `certificate`)."""
    theirs, ours = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    signed = _signed("The company", theirs, by="The company", key_of_signer=theirs, ca=True)
    leaf = _signed("api.example", ours, by="The company", key_of_signer=theirs, ca=False)
    pem = serialization.Encoding.PEM
    (tmp_path / "authority.pem").write_bytes(signed.public_bytes(pem))
    (tmp_path / "proxy.pem").write_bytes(leaf.public_bytes(pem))
    plain = serialization.NoEncryption()
    (tmp_path / "proxy.key").write_bytes(ours.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return tmp_path / "authority.pem"


def _signed(name: str, key: Any, *, by: str, key_of_signer: Any, ca: bool) -> x509.Certificate:
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, by))
    now, names = (
        clock.now(),
        [x509.DNSName("api.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
    )
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key_of_signer, hashes.SHA256())


@pytest.fixture
def certificate(authority: Path) -> tuple[Path, Path]:
    """A certificate of the company's, and its key."""
    return authority.with_name("proxy.pem"), authority.with_name("proxy.key")


class TestTheWayThroughIt:
    @pytest.mark.parametrize("ask", [GET, CONNECT], ids=["plain", "tunnel"])
    def test_what_is_allowed_goes_through_it_with_the_password(
        self, prompt: Prompt, origin: str, company: Outside, ask: str
    ) -> None:
        proxy = company(user="fleet", password=PASSWORD)
        place, api = outside(origin)
        assert inside(prompt, ask.format(place), api=api).endswith(f"/x?y=1 {place}" if ask is GET else "/in t"), (
            "its name is nowhere but there"
        )
        assert "web.example" in proxy.log

    @pytest.mark.parametrize("ask", [GET, CONNECT], ids=["plain", "tunnel"])
    def test_what_is_not_allowed_never_gets_there(
        self, prompt: Prompt, origin: str, company: Outside, ask: str
    ) -> None:
        proxy = company()
        place, _ = outside(origin)
        assert f"does not let this bot reach {place}" in inside(prompt, ask.format(place))
        assert "web.example" not in proxy.log

    @pytest.mark.parametrize("ask", [GET, CONNECT], ids=["plain", "tunnel"])
    def test_a_password_that_it_does_not_accept_is_told_and_not_shown(
        self, prompt: Prompt, origin: str, company: Outside, ask: str
    ) -> None:
        proxy = company(user="fleet", password=PASSWORD, known=False)
        place, api = outside(origin)
        said = inside(prompt, ask.format(place), api=api)
        assert "502" in said and f"{proxy.place} does not accept our name and password (407)" in said
        assert "another-one" not in said

    def test_what_it_cannot_reach_is_told(self, prompt: Prompt, company: Outside) -> None:
        proxy = company()
        said = inside(prompt, CONNECT.format("gone.example:1"), api="http://gone.example:1")
        assert "502" in said and f"the company's proxy {proxy.place} could not connect to it" in said

    def test_a_proxy_that_is_not_there_is_told(self, prompt: Prompt, settings: Any) -> None:
        settings.FLEET_OUTGOING = Outgoing.read({"HTTPS_PROXY": "http://127.0.0.1:1"})
        said = inside(prompt, CONNECT.format("web.example:443"), api="https://web.example")
        assert "the company's proxy 127.0.0.1:1 cannot be used: the connection was refused" in said

    def test_what_the_company_reaches_directly_does_not_go_through_it(
        self, prompt: Prompt, origin: str, company: Outside
    ) -> None:
        proxy = company(no="127.0.0.1,.example")
        assert inside(prompt, GET.format(origin), api=f"http://{origin}").endswith(f"/x?y=1 {origin}")
        place, api = outside(origin)
        assert "its name could not be looked up" in inside(prompt, GET.format(place), api=api)
        assert "web.example" not in proxy.log and origin not in proxy.log

    def test_this_machine_is_never_asked_of_it(self, prompt: Prompt, origin: str, company: Outside) -> None:
        proxy = company()
        assert inside(prompt, GET.format(origin), api=f"http://{origin}").endswith(f"/x?y=1 {origin}")
        assert origin not in proxy.log

    def test_it_may_speak_tls_with_a_certificate_of_the_companys_own(
        self, prompt: Prompt, origin: str, company: Outside, certificate: tuple[Path, Path], authority: Path
    ) -> None:
        company(user="fleet", password=PASSWORD, tls=certificate, ca=authority)
        place, api = outside(origin)
        assert inside(prompt, GET.format(place), api=api).endswith(f"/x?y=1 {place}")
        assert inside(prompt, CONNECT.format(place), api=api).endswith("/in t")

    def test_a_certificate_that_nobody_vouches_for_is_told(
        self, prompt: Prompt, origin: str, company: Outside, certificate: tuple[Path, Path]
    ) -> None:
        proxy = company(tls=certificate)
        place, api = outside(origin)
        said = inside(prompt, CONNECT.format(place), api=api)
        assert f"{proxy.place} cannot be used: its certificate or TLS is not accepted" in said


class TestItsPassword:
    def test_a_bot_finds_it_nowhere(self, prompt: Prompt, origin: str, company: Outside) -> None:
        proxy = company(user="fleet", password=PASSWORD)
        _, api = outside(origin)
        look = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; grep -rs pass-word $HOME . /tmp /run"
        said = inside(prompt, look, api=api)
        assert "HTTPS_PROXY=http://127.0.0.1:3128" in said
        assert PASSWORD not in said and str(proxy.port) not in said

    def test_a_bot_on_the_machines_own_network_is_not_started_with_it(self, prompt: Prompt, company: Outside) -> None:
        company(user="fleet", password=PASSWORD)
        opened = with_network(prompt, NetworkPolicy.OPEN)
        with pytest.raises(NotPrepared, match="asks for a password") as refused:
            inside(opened, "true", api="https://api.example")
        assert refused.value.finished.outcome == OutcomeClass.GOVERNANCE
        assert PASSWORD not in refused.value.finished.sentence

    def test_it_is_started_where_the_api_needs_no_proxy_or_the_proxy_no_password(
        self, prompt: Prompt, company: Outside, settings: Any
    ) -> None:
        opened = with_network(prompt, NetworkPolicy.OPEN)
        company(user="fleet", password=PASSWORD, no="api.example")
        assert inside(opened, "echo started", api="https://api.example") == "started\n"
        settings.FLEET_OUTGOING = Outgoing.read({"HTTPS_PROXY": "http://127.0.0.1:1"})
        assert inside(opened, "echo started", api="https://api.example") == "started\n"

    def test_no_log_shows_it(self) -> None:
        written = "fleet:p%40ss-word-8"
        told = Outgoing.read({"https_proxy": f"http://{written}@proxy.example:3128"})
        assert "ss-word-8" not in repr(told)
        for secret in told.secrets():
            register(secret)
        for text in (f"http://{written}@proxy.example", "p@ss-word-8", "Basic ZmxlZXQ6cEBzcy13b3JkLTg="):
            assert "ss-word-8" not in mask(text) and "ZmxlZXQ6" not in mask(text)

    def test_a_password_without_a_name_is_one_too(self) -> None:
        told = Outgoing.read({"HTTPS_PROXY": "http://:p%40ss@proxy.example:3128"})
        assert told.told()["https"]["credentials"] == f"Basic {base64.b64encode(b':p@ss').decode()}"
        assert {"p@ss", "p%40ss"} <= set(told.secrets()) and told.keeps_from("https://api.example")

    def test_the_environment_of_a_cli_has_no_proxy_with_a_password(self, tmp_path: Path) -> None:
        named = {
            "HTTPS_PROXY": f"http://fleet:{PASSWORD}@proxy.example:3128",
            "HTTP_PROXY": "http://proxy.example:3128",
        }
        said = subprocess.run(
            [
                sys.executable,
                "-c",
                "from fleet.settings import base; print(base.FLEET_CLI_ENVIRONMENT, base.FLEET_OUTGOING.told())",
            ],
            env={**os.environ, "FLEET_VAR": str(tmp_path), **named},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        handed, _, told = said.partition("} {")
        known = base64.b64encode(f"fleet:{PASSWORD}".encode()).decode()
        assert f"Basic {known}" in told and known not in handed and PASSWORD not in handed and "'HTTP_PROXY'" in handed


class TestTheSetting:
    def test_the_usual_variables_are_read_the_small_ones_first(self) -> None:
        both = {"HTTPS_PROXY": "http://one.example", "https_proxy": "two.example:81", "no_proxy": "a.example"}
        told = Outgoing.read(both)
        assert (told.https, told.http, told.direct) == ("http://two.example:81", "", "a.example")
        assert Outgoing.read({}) == Outgoing()

    @pytest.mark.parametrize("url", ["socks5://proxy.example:1080", "http://", "http://proxy.example:nonsense"])
    def test_what_is_no_such_proxy_is_said_when_fleet_starts(self, url: str) -> None:
        with pytest.raises(BadProxy, match="HTTPS_PROXY names no proxy that Fleet can use"):
            Outgoing.read({"HTTPS_PROXY": url})


@pytest.fixture
def api_with_tls(model_emulator: ModelEmulator, certificate: tuple[Path, Path]) -> Iterator[str]:
    """The emulated API under a name of the company's, with its certificate, as `https://api.example:<port>`."""
    loop, port = asyncio.new_event_loop(), urlsplit(model_emulator.url).port
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer), return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"https://api.example:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.mark.realcli
@pytest.mark.parametrize("provider", ["claude", "codex"])
class TestRealClis:
    @pytest.fixture
    def login(self, settings: Any, provider: str, api_with_tls: str, authority: Path, monkeypatch) -> None:
        settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "sk-ant-not-a-key", api_with_tls
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk-not-a-key", f"{api_with_tls}/v1"
        trust = {"SSL_CERT_FILE": str(authority), "NODE_EXTRA_CA_CERTS": str(authority)}
        settings.FLEET_CLI_ENVIRONMENT = {**settings.FLEET_CLI_ENVIRONMENT, **trust}
        monkeypatch.setattr("execution.providers.claude.launch.RETRIES", 1)
        settings.FLEET_RETRY_SECONDS = 3

    def ask(self, run: Run, provider: str) -> Any:
        one = registry.get(provider)
        identity = made.BotFactory(warm=False)
        answers = one.capabilities.model_for(identity.model)
        return run(made.queued("hello", identity=identity, provider=provider, model=answers, login=one.login()))

    def test_a_turn_goes_through_it_and_trusts_the_companys_certificate(
        self, run: Run, login: None, company: Outside, model_emulator: ModelEmulator, provider: str
    ) -> None:
        proxy = company(user="fleet", password=PASSWORD)
        model_emulator.reply("hello", "Good day.")
        row = self.ask(run, provider)
        assert (row.outcome, row.answer) == (OutcomeClass.OK, "Good day."), row.sentence
        eventually(lambda: "CONNECT api.example" in proxy.log, "the company's proxy to tell of the tunnel")

    def test_a_password_that_it_does_not_accept_is_this_sides_trouble(
        self, run: Run, login: None, company: Outside, provider: str
    ) -> None:
        company(user="fleet", password=PASSWORD, known=False)
        row = self.ask(run, provider)
        assert (row.outcome, row.cause) == (OutcomeClass.ERROR, Cause.NETWORK), row.sentence
        assert "does not accept our name and password (407), which stand in HTTPS_PROXY" in row.sentence
