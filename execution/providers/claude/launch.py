"""What the CLI is started with: its arguments, its environment, its directories. Nothing secret is an argument."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import structlog
from django.conf import settings

from execution.ports import Prompt
from execution.providers.claude import transcripts
from execution.providers.claude.transcripts import TRANSCRIPTS
from execution.sandbox import Needs, Servers, arrange, check_enclosable, enclose, own_directories, scratch

log = structlog.get_logger(__name__)
OLDEST_VERSION = (2, 1, 248)  # from here on chat text is taken word for word; older ones would run its slash commands
RETRIES = 4  # about eight seconds; a person waits
VERSION_SECONDS = 20.0
_LONGEST_REASON = 500
MCP_FILE = "mcp.json"
API = "https://api.anthropic.com"
# What the CLI notes at its first start. One that knows of later migrations finds nothing to migrate.
_STARTED_BEFORE = {
    "firstStartTime": "2026-01-01T00:00:00.000Z",
    "migrationVersion": 15,
    "opusProMigrationComplete": True,
    "hasResetAutoModeOptInForDefaultOffer": True,
    "seenNotifications": {},
}
# Variables of an operator with an authority of its own; a company's proxy may look into TLS.
_OWN_TRUST = {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY", "https_proxy"}
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one CLI. `scratch` holds its sockets and other leavings: whoever started it removes the directory afterwards."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    cwd: Path
    resumed: bool
    scratch: Path
    network: str = field(default="", repr=False)  # with the password of the company's proxy in it


def prepare(prompt: Prompt) -> Launch:
    """Return how to start the CLI for this prompt, with its directories in place."""
    check_enclosable(prompt.confinement)
    configuration = configuration_directory(prompt.home)
    own_directories(prompt.home, configuration, configuration / TRANSCRIPTS)
    with scratch() as place:
        return _plan(prompt, configuration, place)


def _fresh(scratch: Path, prompt: Prompt) -> Path:
    """Make a configuration directory as one is left by a first start, which would take time; the bot keeps its number at the API."""
    place = scratch / "configuration"
    place.mkdir(mode=0o700)
    number = hashlib.sha256(str(prompt.home).encode()).hexdigest()
    (place / ".claude.json").write_text(json.dumps({**_STARTED_BEFORE, "userID": number, "machineID": number}))
    return place


def _plan(prompt: Prompt, configuration: Path, scratch: Path) -> Launch:
    session = _session(prompt, configuration)
    environment = _environment(prompt, configuration) | {"CLAUDE_CODE_TMPDIR": str(scratch)}
    cli = cli_path().resolve()
    servers = arrange(prompt, scratch, environment)
    needs = Needs(
        programs=(cli, *servers.programs),
        writable=(scratch, configuration / TRANSCRIPTS),
        # No switch keeps the CLI from the variables in its `.claude.json`, which say whom it shows its key.
        fresh=((_fresh(scratch, prompt), configuration),),
        api=settings.ANTHROPIC_BASE_URL or API,
        before=servers.before,
    )
    arguments = session + _arguments(prompt, _system_prompt_file(prompt, scratch), _mcp_file(servers, scratch))
    enclosed = enclose((str(cli), *arguments), environment, prompt=prompt, needs=needs)
    secrets = _secrets() | servers.secrets
    return Launch(
        enclosed.argv,
        enclosed.environment,
        secrets,
        prompt.workspace,
        _remembers(session),
        scratch,
        network=enclosed.network,
    )


def _mcp_file(servers: Servers, scratch: Path) -> Path | None:
    """Return the file with the bot's MCP servers, which is there until the CLI has read it (`forget`)."""
    if not servers.configuration:
        return None
    path = scratch / MCP_FILE
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - mode at creation
        json.dump({"mcpServers": servers.configuration}, file)
    return path


def forget(scratch: Path) -> None:
    """Remove what only a starting CLI needs: no tool of the bot is to find it."""
    (scratch / MCP_FILE).unlink(missing_ok=True)


def cli_path() -> Path:
    """Return the CLI to run: the one in the SDK's wheel, unless FLEET_CLAUDE_CLI names another."""
    if settings.FLEET_CLAUDE_CLI:
        return Path(settings.FLEET_CLAUDE_CLI)
    package = find_spec("claude_agent_sdk")  # found without importing it: that takes a second and 40 MB
    return Path(package.origin).parent / "_bundled" / "claude" if package and package.origin else Path("claude")


def cli_version(path: Path) -> tuple[int, ...]:
    """Return the version the CLI reports; empty when it reports none. What a file has said is not asked again until it is exchanged."""
    try:
        state = path.stat()
        return _version_of(path.resolve(), state.st_ino, state.st_mtime_ns)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        log.warning("claude.version_unknown", path=str(path), error=str(error))
        return ()


@lru_cache(maxsize=8)
def _version_of(path: Path, _inode: int, _modified_ns: int) -> tuple[int, ...]:
    """Return what the CLI says. Raises what is not remembered: OSError, TimeoutExpired, ValueError."""
    asked = subprocess.run(
        [str(path), "--version"],
        capture_output=True,
        text=True,
        timeout=VERSION_SECONDS,
        env={"PATH": _SAFE_PATH},
        check=False,
    )
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", asked.stdout.strip())
    if not found:
        raise ValueError(f"It ended with {asked.returncode}: {(asked.stdout + asked.stderr)[:_LONGEST_REASON]}")
    return tuple(int(number) for number in found.groups())


@cache
def _sdk_version() -> str:
    return version("claude-agent-sdk")


def configuration_directory(home: Path) -> Path:
    """Return the CLI's configuration directory as the CLI knows it."""
    return home / ".claude"


def transcript_exists(configuration: Path, session_id: str) -> bool:
    """Return whether the CLI has a transcript of this session: only then can it be resumed, and only without it be begun."""
    return transcripts.find(configuration, session_id) is not None


def _system_prompt_file(prompt: Prompt, scratch: Path) -> Path:
    """Return a file with the system prompt: an argument is limited to 128 kB and readable by all.

    It is written for every process, and not into the bot's home: what is found there, the bot may have changed.
    """
    path = scratch / "system-prompt.md"
    path.write_bytes(prompt.system_prompt.encode())
    return path


def _session(prompt: Prompt, configuration: Path) -> list[str]:
    """Return the arguments that begin the session, go on with it, or branch it off another one."""
    if transcript_exists(configuration, prompt.session_id):
        return [f"--resume={prompt.session_id}"]
    begun = [f"--session-id={prompt.session_id}"]
    if prompt.forks and transcript_exists(configuration, prompt.forks):
        return [f"--resume={prompt.forks}", "--fork-session", *begun]
    return begun


def _remembers(session: list[str]) -> bool:
    return session[0].startswith("--resume")


def _arguments(prompt: Prompt, system_prompt: Path, mcp: Path | None) -> list[str]:
    arguments = [
        *("--output-format", "stream-json", "--verbose", "--input-format", "stream-json"),
        *("--include-partial-messages", "--strict-mcp-config", "--setting-sources="),
        *("--permission-mode", "default"),
        *("--system-prompt-file", str(system_prompt)),
        *("--system-prompt-snapshot", "off"),  # else a resumed session goes on with the wording it began with
        *("--tools", ",".join(tool for tool in prompt.tools if not tool.startswith("mcp__"))),
        *("--model", prompt.model),
        *("--max-turns", str(prompt.max_turns)),
    ]
    if settings.FLEET_TRANSCRIPT_STORE:
        arguments += ["--session-mirror"]
    if prompt.effort:
        arguments += ["--effort", prompt.effort]
    if mcp:
        arguments += ["--mcp-config", str(mcp)]
    return arguments


def _environment(prompt: Prompt, configuration: Path) -> dict[str, str]:
    """Return all that the CLI sees of the world: an allowlist, its own directories, and its switches."""
    ours = {
        "HOME": str(prompt.home),
        "PWD": str(prompt.workspace),
        "CLAUDE_CONFIG_DIR": str(configuration),
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        "CLAUDE_AGENT_SDK_VERSION": _sdk_version(),
        "CLAUDE_CODE_SDK_READS_SESSION_STATE": "1",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # a line that changes with each first message would undo the prompt cache
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",  # an answer cut off for good is not asked and paid for once more
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",  # what a bot remembers is ours to decide, and goes into the same bytes
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",  # nothing outlives its turn
        "CLAUDE_CODE_DISABLE_CRON": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
        "DISABLE_AUTOUPDATER": "1",
    }
    if settings.ANTHROPIC_BASE_URL:
        ours["ANTHROPIC_BASE_URL"] = settings.ANTHROPIC_BASE_URL
    return {"PATH": _SAFE_PATH, "LANG": "C.UTF-8", **_trust(), **settings.FLEET_CLI_ENVIRONMENT, **ours}


def _trust() -> dict[str, str]:
    """Return whose certificates the CLI believes: reading the machine's takes 20 ms of each start, and a public API needs none of them."""
    own = settings.FLEET_CLI_ENVIRONMENT.keys() & _OWN_TRUST or settings.FLEET_OUTGOING.https
    is_private = settings.ANTHROPIC_BASE_URL.startswith("https:") or own
    return {} if is_private else {"CLAUDE_CODE_CERT_STORE": "bundled"}


def _secrets() -> dict[str, str]:
    """Return what the CLI reads once from a pipe; its environment would be readable for every tool that may run commands."""
    if settings.ANTHROPIC_API_KEY:
        return {"CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR": settings.ANTHROPIC_API_KEY}
    token = settings.CLAUDE_CODE_OAUTH_TOKEN
    return {"CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR": token} if token else {}
