"""What a process inside of a bot's walls sees, writes and reaches. Real bubblewrap, no CLI: a shell in its place."""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from execution import actions, sandbox
from execution.ports import Confinement, NotPrepared, Prompt
from execution.sandbox import Needs, configuration, presence, profile
from execution.shim.handle import OwnShim
from execution.states import OutcomeClass
from fleet.kernel.models import JournalEntry
from identities.states import NetworkPolicy

pytestmark = pytest.mark.timeout(300)
API = "https://api.example.com"


@pytest.fixture
def prompt(settings, tmp_path: Path) -> Prompt:
    settings.FLEET_RUNTIME_DIR = tmp_path / "run"
    settings.FLEET_HOMES, settings.FLEET_WORKSPACES = tmp_path / "homes", tmp_path / "workspaces"
    for place in (settings.FLEET_HOMES, settings.FLEET_WORKSPACES):
        for bot in ("ada", "boris"):
            (place / bot).mkdir(parents=True)
            (place / bot / "diary").write_text(f"the diary of {bot}")
    return Prompt(
        system_prompt="",
        model="m",
        workspace=settings.FLEET_WORKSPACES / "ada",
        home=settings.FLEET_HOMES / "ada",
        session_id="s",
        session_turns=0,
        confinement=Confinement(bot="ada"),
    )


def inside(
    prompt: Prompt,
    script: str,
    *,
    api: str = API,
    secrets: dict[str, str] | None = None,
    needs: Needs | None = None,
    **variables: str,
) -> str:
    """Run a script where the bot's CLI would run, and return what it says."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(prompt.home), **variables}
    needs = needs or Needs(programs=(), writable=(), api=api)
    enclosed = sandbox.enclose(("/bin/bash", "-c", script), environment, prompt=prompt, needs=needs)
    shim = OwnShim(sandbox.proxy())
    try:
        shim.start(
            enclosed.argv,
            environment=enclosed.environment,
            cwd=prompt.workspace,
            secrets=secrets,
            network=enclosed.network,
        )
        said = shim.take_stream()
        said.setblocking(True)
        text = b"".join(iter(lambda: said.recv(65536), b""))
        assert shim.wait_gone(30), "something is left of it"
        return (text + shim.last_words).decode()
    finally:
        shim.close()


def _checkout_in_tmp() -> str:
    """A checkout below /tmp is where the interpreter lives, so its directory is there, empty but for that."""
    place = Path(__file__).resolve()
    return f" -e {place.parts[2]}" if place.parts[1] == "tmp" else ""


class TestFiles:
    def test_it_works_in_its_workspace_and_its_home(self, prompt: Prompt) -> None:
        said = inside(prompt, "pwd; cat diary $HOME/diary; echo mine > new; echo mine > $HOME/new")
        assert said == f"{prompt.workspace}\nthe diary of adathe diary of ada"
        assert (prompt.workspace / "new").read_text() == (prompt.home / "new").read_text() == "mine\n"

    def test_it_sees_nothing_of_another_bot(self, prompt: Prompt, settings) -> None:
        said = inside(
            prompt, f"ls {settings.FLEET_HOMES} {settings.FLEET_WORKSPACES}; cat {settings.FLEET_HOMES}/boris/diary"
        )
        assert "boris\n" not in said.replace("boris/diary", "")
        assert "No such file" in said

    def test_a_link_out_leads_nowhere(self, prompt: Prompt, settings) -> None:
        (prompt.workspace / "other").symlink_to(settings.FLEET_HOMES / "boris" / "diary")
        (prompt.workspace / "shadow").symlink_to("/etc/shadow")
        said = inside(prompt, "cat other shadow; echo overwritten > other; echo overwritten > shadow")
        assert said.count("No such file") >= 2 and "diary of" not in said and "root:" not in said
        assert (settings.FLEET_HOMES / "boris" / "diary").read_text() == "the diary of boris"

    @pytest.mark.parametrize(
        "place", [".claude", ".claude/projects", ".codex", ".codex/sessions", ".codex/fleet-threads"]
    )
    def test_it_puts_nothing_in_the_place_of_a_directory_that_is_mounted_for_another_process(
        self, prompt: Prompt, place: str
    ) -> None:
        """A rename there takes the mount along in every other sandbox, and a link is followed by what is mounted next."""
        path = prompt.home / place
        said = inside(
            prompt,
            f"cd $HOME; mkdir -p {place}; mv {place} {place}-away; rm -r {place}; ln -sT /etc {place}; ls -d {place}",
        )
        assert said.count("busy") >= 2, said
        assert path.is_dir() and not path.is_symlink() and not path.with_name(f"{path.name}-away").exists()

    @pytest.mark.parametrize("left", ["link", "dangling", "file"])
    @pytest.mark.parametrize("place", [".claude", ".codex/sessions"])
    def test_what_was_left_in_the_place_of_one_is_removed(
        self, prompt: Prompt, tmp_path: Path, place: str, left: str
    ) -> None:
        path = prompt.home / place
        path.parent.mkdir(exist_ok=True)
        if left == "file":
            path.write_text("mine")
        else:
            path.symlink_to(tmp_path / "run" if left == "link" else "/no/such")
        assert inside(prompt, f"echo in > $HOME/{place}/new; cat $HOME/{place}/new") == "in\n"
        assert (path / "new").is_file() and not path.is_symlink()

    def test_it_sees_nothing_of_fleet_itself(self, prompt: Prompt, settings) -> None:
        secret = settings.FLEET_VAR / "keys" / "canary"
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("the key of everything")
        said = inside(
            prompt, f"cat {secret} {settings.ROOT}/manage.py; ls {settings.ROOT} {settings.FLEET_VAR} /root /home"
        )
        assert "the key of everything" not in said and "django" not in said.lower().replace(str(settings.ROOT), "")

    def test_fleet_installed_below_the_system_is_hidden_too(self, prompt: Prompt, settings) -> None:
        settings.ROOT = Path("/usr/share/doc")
        assert inside(prompt, "ls /usr/share/doc | wc -l") == "0\n"

    @pytest.mark.parametrize("named", ["/usr", "/opt/tools"])
    def test_fleet_installed_below_something_readable_is_hidden_too(
        self, prompt: Prompt, settings, tmp_path: Path, named: str
    ) -> None:
        """An MCP server's interpreter names the whole of /usr, where that is its prefix."""
        settings.ROOT = Path("/usr/share/doc")
        if named != "/usr":
            named, settings.ROOT = str(tmp_path / "opt"), tmp_path / "opt" / "fleet"
            settings.ROOT.mkdir(parents=True)
            (settings.ROOT / ".env").write_text("the key of everything")
        settings.FLEET_SANDBOX_READABLE = [named]
        assert inside(prompt, f"ls -A {settings.ROOT} | wc -l; ls -d {named}") == f"0\n{named}\n"

    def test_a_fresh_directory_is_another_one_and_what_is_written_there_is_gone_with_it(
        self, prompt: Prompt, tmp_path: Path
    ) -> None:
        configuration = prompt.home / "configuration"
        (configuration / "kept").mkdir(parents=True)
        (configuration / "planted").touch()
        look = f"cd {configuration}; ls; echo mine > new; echo mine > kept/new; cat new"
        needs = Needs(
            programs=(), writable=(configuration / "kept",), api=API, fresh=((tmp_path / "another", configuration),)
        )
        (tmp_path / "another").mkdir()
        (tmp_path / "another" / "given").touch()
        assert inside(prompt, look, needs=needs) == "given\nkept\nmine\n"
        assert sorted(path.name for path in configuration.rglob("*")) == ["kept", "new", "planted"]
        assert (configuration / "kept" / "new").exists()

    def test_of_etc_it_sees_what_programs_need_and_no_more(self, prompt: Prompt) -> None:
        said = inside(
            prompt, "ls /etc; id -un; ls /etc/ssl/certs | grep -c .; ls /etc/shadow /etc/ssl/private /etc/ssh"
        )
        names = set(said.split("\n")[: said.split("\n").index(getpass.getuser())])
        assert (
            {"passwd", "hosts", "ssl", "alternatives"} <= names <= {name.split("/")[0] for name in configuration.NAMES}
        )
        assert said.count("No such file") == 3

    def test_the_time_zone_keeps_its_name(self, prompt: Prompt, monkeypatch, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        zone = Path("/usr/share/zoneinfo/Europe/Vienna")
        (etc / "localtime").symlink_to(zone)
        (tmp_path / "hosts").write_text("said elsewhere\n")
        (etc / "hosts").symlink_to(tmp_path / "hosts")
        monkeypatch.setattr(configuration, "ETC", etc)
        said = inside(prompt, "readlink /etc/localtime; env -u TZ date -d 2026-07-01T12:00Z +%H; cat /etc/hosts")
        assert said == f"{zone}\n14\nsaid elsewhere\n", "what it could not follow is copied"

    def test_what_changes_in_etc_is_seen_by_the_next_sandbox(self, prompt: Prompt, monkeypatch, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        (etc / "ssl" / "certs").mkdir(parents=True)
        (etc / "hosts").write_text("before\n")
        monkeypatch.setattr(configuration, "ETC", etc)
        assert inside(prompt, "cat /etc/hosts; ls /etc/ssl/certs") == "before\n"
        (etc / "hosts").write_text("afterwards\n")
        (etc / "ssl" / "certs" / "new.pem").touch()
        assert inside(prompt, "cat /etc/hosts; ls /etc/ssl/certs") == "afterwards\nnew.pem\n"
        assert len(list(configuration.directory().parent.iterdir())) == 2, "one was made at every start"

    def test_a_copy_of_etc_that_was_used_today_is_kept_when_another_one_is_made(
        self, prompt: Prompt, monkeypatch, tmp_path: Path
    ) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        (etc / "hosts").write_text("before\n")
        monkeypatch.setattr(configuration, "ETC", etc)
        first = configuration.directory()
        os.utime(first, (0, 0))
        assert configuration.directory() == first, "used again, by a sandbox that may go on for long"
        (etc / "hosts").write_text("afterwards\n")
        second = configuration.directory()
        os.utime(first, (0, 0))
        (etc / "hosts").write_text("and then\n")
        assert (first.is_dir(), second.is_dir()) == (True, True)
        configuration.directory()
        assert (first.is_dir(), second.is_dir()) == (False, True)

    def test_the_system_is_there_and_cannot_be_changed(self, prompt: Prompt) -> None:
        said = inside(prompt, "for f in /usr/bin/env /etc/passwd /new; do : >> $f; done; ls /usr/bin/env")
        assert said.count("Read-only file system") == 3 and said.startswith("/usr/bin/env\n")

    def test_the_kernels_switches_are_shut_even_for_root(self, prompt: Prompt) -> None:
        """The value is the one it has, so that nothing happens should it be possible."""
        switch = "/proc/sys/kernel/core_pattern"
        said = inside(
            prompt, f'v=$(cat {switch}); echo "$v" > {switch} && echo written; : > /proc/sysrq-trigger && echo pulled'
        )
        assert "written" not in said and "pulled" not in said
        assert "Read-only file system" in said or "Permission denied" in said

    def test_tmp_is_its_own(self, prompt: Prompt, tmp_path_factory) -> None:
        said = inside(
            prompt,
            f"ls -A /tmp | grep -v -e pytest{_checkout_in_tmp()}; echo hello > /tmp/trace-of-a-sandbox; cat /tmp/trace-of-a-sandbox",
        )
        assert said == "hello\n"
        assert not Path("/tmp/trace-of-a-sandbox").exists()

    def test_a_program_that_was_named_is_readable_only(self, prompt: Prompt, settings, tmp_path: Path) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\necho tool\n")
        (tmp_path / "tool").chmod(0o755)
        settings.FLEET_SANDBOX_READABLE = [str(tmp_path / "tool")]
        said = inside(prompt, f"{tmp_path}/tool; echo > {tmp_path}/tool")
        assert said.startswith("tool\n") and "Read-only" in said


class TestProcesses:
    def test_it_sees_its_own_processes_only(self, prompt: Prompt) -> None:
        *processes, host = inside(prompt, "cat /proc/[0-9]*/comm; hostname").split()
        assert {"bash", "bwrap"} <= set(processes) <= {"bash", "bwrap", "cat"} and host == "sandbox"

    def test_it_cannot_signal_what_is_outside(self, prompt: Prompt) -> None:
        assert "No such process" in inside(prompt, f"kill -9 {os.getpid()}")

    def test_it_has_no_rights_and_gets_none(self, prompt: Prompt) -> None:
        said = inside(
            prompt,
            "grep -E 'Cap(Eff|Prm|Bnd)|NoNewPrivs' /proc/self/status; unshare -U true && echo nested",
        )
        assert said.count("0000000000000000") == 3 and "NoNewPrivs:\t1" in said
        assert "nested" not in said

    def test_a_secret_reaches_it_through_a_pipe(self, prompt: Prompt) -> None:
        said = inside(prompt, "cat <&$KEY; echo; env", secrets={"KEY": "sk-canary"})
        assert said.startswith("sk-canary\n") and "sk-canary" not in said[len("sk-canary\n") :]

    def test_the_proxy_holds_no_secret_and_none_of_its_streams(self, prompt: Prompt) -> None:
        """If it did, the pipe would never end: `inside` would wait for ever."""
        assert (
            inside(prompt, "cat <&$KEY >/dev/null; timeout 5 cat <&$KEY; echo ended $?", secrets={"KEY": "x"})
            == "ended 0\n"
        )

    def test_nothing_is_left_of_it_when_the_shim_is_killed(self, prompt: Prompt) -> None:
        needs = Needs(programs=(), writable=(), api=API)
        enclosed = sandbox.enclose(("/bin/sleep", "600"), {"PATH": "/bin"}, prompt=prompt, needs=needs)
        shim = OwnShim(sandbox.proxy())
        shim.start(enclosed.argv, environment=enclosed.environment, cwd=prompt.workspace, network=enclosed.network)
        everything = partial(psutil.Process(shim.pid).children, recursive=True)
        below = until_there(lambda: [] if len(everything()) < 3 else everything())  # walls, their inside, the proxy
        os.kill(shim.pid, 9)
        assert shim.wait_gone(30)
        shim.close()
        _, left = psutil.wait_procs(below, 10)
        assert left == []


class TestSpare:
    """A shim that waits for something to run has the network and its proxy ready."""

    def test_it_ends_with_its_worker_and_so_does_the_proxy(self) -> None:
        shim = OwnShim(sandbox.proxy())
        (proxy,) = until_there(lambda: psutil.Process(shim.pid).children())
        shim.close()
        assert psutil.wait_procs([proxy], 10)[1] == []
        assert not shim.alive

    def test_the_proxy_goes_when_the_cli_is_in_the_machines_network(self, prompt: Prompt) -> None:
        shim = OwnShim(sandbox.proxy())
        (proxy,) = until_there(lambda: psutil.Process(shim.pid).children())
        shim.start(["/bin/sleep", "600"], environment={}, cwd=prompt.workspace)
        assert psutil.wait_procs([proxy], 10)[1] == []
        shim.stop(grace=0)
        assert shim.wait_gone(30)
        shim.close()

    def test_where_no_network_can_be_made_nothing_runs_in_the_machines(self, prompt: Prompt) -> None:
        shim = OwnShim()
        with pytest.raises(OSError, match="not permitted"):
            shim.start(["/bin/touch", "ran"], environment={}, cwd=prompt.workspace, network="{}")
        shim.close()
        assert not (prompt.workspace / "ran").exists()


def until_there(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Origin(BaseHTTPRequestHandler):
    """A web server that says what it was asked."""

    def do_GET(self) -> None:
        body = f"{self.path} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def origin() -> Iterator[str]:
    """A web server on this machine, as `127.0.0.1:<port>`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


_PROXY = "exec 3<>/dev/tcp/127.0.0.1/3128; printf '%b' '{}' >&3; timeout 10 cat <&3"
GET = _PROXY.format(r"GET http://{0}/x?y=1 HTTP/1.1\r\nHost: {0}\r\n\r\n")
CONNECT = _PROXY.format(r"CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\nGET /in HTTP/1.0\r\nHost: t\r\n\r\n")


def with_network(prompt: Prompt, policy: NetworkPolicy, *allowed: str) -> Prompt:
    return replace(prompt, confinement=Confinement(bot="ada", network=policy, allowed=allowed))


class TestNetwork:
    def test_it_has_no_network_but_the_way_to_its_provider(self, prompt: Prompt, origin: str) -> None:
        host, port = origin.split(":")
        assert "refused" in inside(prompt, f"echo > /dev/tcp/{host}/{port}", api=f"http://{origin}")
        assert inside(prompt, GET.format(origin), api=f"http://{origin}").endswith(f"/x?y=1 {origin}")
        assert inside(prompt, CONNECT.format(origin), api=f"http://{origin}").endswith("/in t")

    def test_it_is_told_where_its_proxy_is(self, prompt: Prompt) -> None:
        said = inside(prompt, "env", TMPDIR="/elsewhere")
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            assert f"{name}=http://127.0.0.1:3128\n" in said

    def test_another_destination_is_refused_with_a_sentence(self, prompt: Prompt, origin: str) -> None:
        for ask in (GET, CONNECT):
            said = inside(prompt, ask.format(origin))
            assert "403" in said and f"does not let this bot reach {origin}" in said and "administrator" in said

    def test_another_port_of_the_provider_is_another_destination(self, prompt: Prompt, origin: str) -> None:
        assert "403" in inside(prompt, GET.format(origin), api="http://127.0.0.1:1")

    @pytest.mark.django_db
    def test_what_was_refused_is_journaled_once_with_the_bot(self, prompt: Prompt) -> None:
        twice = "for i in 1 2; do " + GET.format("evil.example:80") + "; done"
        inside(prompt, twice)
        actions.tell_refused_connections(sandbox.taken_refusals())
        (entry,) = JournalEntry.objects.filter(event="execution.egress.refused")
        assert (entry.subject_id, entry.details["host"], entry.details["times"]) == ("ada", "evil.example", 1)
        assert sandbox.taken_refusals() == []

    def test_an_address_of_this_machine_must_be_listed_literally(self, prompt: Prompt, origin: str) -> None:
        port = origin.partition(":")[2]
        listed = with_network(prompt, NetworkPolicy.ALLOWLIST, f"localhost:{port}")
        assert "must not see" in inside(listed, GET.format(f"localhost:{port}"))
        listed = with_network(prompt, NetworkPolicy.ALLOWLIST, origin)
        assert inside(listed, GET.format(origin)).endswith(f"/x?y=1 {origin}")

    def test_a_list_counts_only_under_its_policy(self, prompt: Prompt, origin: str) -> None:
        assert "403" in inside(with_network(prompt, NetworkPolicy.PROVIDER, origin), GET.format(origin))

    def test_open_is_the_machines_own_network(self, prompt: Prompt, origin: str) -> None:
        host, port = origin.split(":")
        opened = with_network(prompt, NetworkPolicy.OPEN)
        said = inside(
            opened,
            f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET /o HTTP/1.0\\r\\nHost: h\\r\\n\\r\\n' >&3; cat <&3; env",
        )
        assert "/o h" in said and ":3128" not in said

    def test_none_is_not_even_the_provider(self, prompt: Prompt) -> None:
        with pytest.raises(NotPrepared, match="may not use the network at all"):
            inside(with_network(prompt, NetworkPolicy.NONE), "true")

    def test_nonsense_is_answered_and_harms_nobody(self, prompt: Prompt, origin: str) -> None:
        garbage = "exec 3<>/dev/tcp/127.0.0.1/3128; head -c 200000 /dev/urandom >&3; exec 3<&-; "
        assert inside(prompt, garbage + GET.format(origin), api=f"http://{origin}").endswith(f"/x?y=1 {origin}")


class TestWhereItIsMissing:
    @pytest.fixture(autouse=True)
    def _forget(self, monkeypatch) -> Iterator[None]:
        monkeypatch.setattr(presence, "_tried", None)
        yield
        presence._tried = None

    @pytest.fixture
    def without(self, monkeypatch) -> None:
        monkeypatch.setattr(presence, "BWRAP", "/nowhere/bwrap")

    def test_nothing_is_started_and_the_sentence_says_what_to_install(self, prompt: Prompt, without: None) -> None:
        with pytest.raises(NotPrepared) as refused:
            inside(prompt, "true")
        assert refused.value.finished.outcome == OutcomeClass.GOVERNANCE
        assert "apt install bubblewrap" in refused.value.finished.sentence

    def test_a_machine_that_forbids_it_is_told_apart(self, prompt: Prompt, monkeypatch, tmp_path: Path) -> None:
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
        monkeypatch.setattr(profile, "BWRAP", str(tmp_path / "bwrap"))
        with pytest.raises(NotPrepared, match=r"No permissions to create new namespace.*user namespaces"):
            inside(prompt, "true")

    def test_a_bot_with_a_waiver_runs_without(self, prompt: Prompt, without: None) -> None:
        waived = replace(prompt, confinement=Confinement(bot="ada", waived=True))
        assert inside(waived, "hostname") == f"{socket.gethostname()}\n"

    def test_an_installation_may_be_without(self, prompt: Prompt, settings, without: None) -> None:
        settings.FLEET_SANDBOX = "off"
        assert inside(prompt, "hostname") == f"{socket.gethostname()}\n"
        assert "FLEET_SANDBOX is off" in sandbox.reason_for_none()

    @pytest.mark.parametrize("setting", ["required", "Require", "on", "true", ""])
    def test_a_slip_of_the_pen_is_no_order_to_be_without(self, prompt: Prompt, settings, setting: str) -> None:
        settings.FLEET_SANDBOX = setting
        assert inside(prompt, "hostname") == "sandbox\n"

    def test_it_is_looked_for_again_after_a_while(self, monkeypatch) -> None:
        monkeypatch.setattr(presence, "BWRAP", "/nowhere/bwrap")
        assert sandbox.missing()
        monkeypatch.setattr(presence, "BWRAP", profile.BWRAP)
        assert sandbox.missing(), "it was tried at every admission"
        monkeypatch.setattr(presence, "AGAIN_SECONDS", 0.0)
        assert sandbox.missing() == ""
