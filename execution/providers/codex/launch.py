"""What the CLI is started with: its settings, its environment, its directories. Nothing secret is an argument or a variable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings

from execution.ports import Finished, NotPrepared, Prompt
from execution.providers.codex.threads import SESSIONS, THREADS
from execution.sandbox import Needs, arrange, check_enclosable, enclose, is_enclosed, own_directories, scratch
from execution.states import OutcomeClass
from identities.states import Transport

OLDEST_VERSION = (
    0,
    163,
    0,
)  # from here on "untrusted" means that every command asks; older ones let `ls` and its like run
ASKS = "untrusted"  # the approval policy of every call; a setting of that name is refused by the CLI
SERVER_SECONDS = 20  # what an MCP server gets to start; less than the whole handshake
RETRIES = 4  # about three seconds; a person waits
OPENAI_URL = "https://api.openai.com/v1"
SHELL_TOOLS = ("Bash", "Read", "Write", "Edit")  # grants that Codex can only serve by its shell and its patches
_SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OFF = (
    *("apps", "plugins", "plugin_sharing", "remote_plugin", "tool_suggest", "skill_mcp_dependency_install"),
    *("hooks", "goals", "memories", "multi_agent", "shell_snapshot", "sleep_tool", "view_image", "image_generation"),
    *("browser_use", "browser_use_external", "browser_use_full_cdp_access", "computer_use", "in_app_browser"),
    *("realtime_conversation", "workspace_dependencies", "api_key_model_discovery", "daemon_auto_start"),
    "unbounded_connection_retries",  # without a network it would wait until the bot's limit of time
    "unified_exec_tty",  # a terminal takes further input that nobody would be asked about
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one CLI. `servers` are its MCP servers as it is told of them once it runs; some have secrets in them."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path
    scratch: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: str = field(default="", repr=False)  # with the password of the company's proxy in it
    servers: Mapping[str, Any] = field(default_factory=dict, repr=False)


def prepare(prompt: Prompt) -> Launch:
    """Return how to start the CLI for this prompt, with its directories in place."""
    check_enclosable(prompt.confinement)
    configuration = configuration_directory(prompt.home)
    kept = (configuration / SESSIONS, configuration / THREADS)
    own_directories(prompt.home, configuration, _temporary(prompt.home), *kept)
    with scratch() as place:
        return _plan(prompt, configuration, place)


def _home_without_walls(scratch: Path, configuration: Path) -> Path:
    """Make a CODEX_HOME for a process without a sandbox; inside one it is a directory in memory."""
    place = scratch / "codex"
    place.mkdir(mode=0o700)
    (place / SESSIONS).symlink_to(configuration / SESSIONS)
    return place


def _plan(prompt: Prompt, configuration: Path, scratch: Path) -> Launch:
    has_walls = is_enclosed(prompt.confinement)
    environment = _environment(prompt, configuration if has_walls else _home_without_walls(scratch, configuration))
    servers = arrange(prompt, scratch, environment, only_tools=True)
    overrides = (argument for name, value in _configuration(prompt).items() for argument in ("-c", f"{name}={value}"))
    cli = cli_path().resolve()
    needs = Needs(
        programs=(cli, cli.with_name("codex-code-mode-host"), *servers.programs),
        writable=(configuration / SESSIONS, *((scratch,) if servers.configuration else ())),
        # Codex obeys what it finds there, such as variables in `.env`, which say whom it shows its key, and a tool of another process of
        # the bot's could write it at any time.
        empty=(configuration,),
        api=settings.OPENAI_BASE_URL or OPENAI_URL,
        nests=True,  # its own sandbox keeps its tools off the network and out of CODEX_HOME
        before=servers.before,
    )
    told = {name: _server(name, said) for name, said in servers.configuration.items()}
    enclosed = enclose((str(cli), *overrides, "app-server"), environment, prompt=prompt, needs=needs)
    return Launch(
        enclosed.argv, enclosed.environment, prompt.workspace, scratch, servers.secrets, enclosed.network, told
    )


def _server(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return an MCP server in Codex's words; each call of its tools asks. Raises NotPrepared for what Codex does not speak."""
    rules = {"default_tools_approval_mode": "prompt", "startup_timeout_sec": SERVER_SECONDS}
    match said["type"]:
        case Transport.STDIO:
            return {"command": said["command"], "args": said["args"], "env": said["env"], **rules}
        case Transport.HTTP:
            return {"url": said["url"], "http_headers": said["headers"], **rules}
    raise NotPrepared(
        Finished(
            OutcomeClass.GOVERNANCE,
            sentence=f"Nothing was started. Codex does not speak with MCP servers as “{name}” is connected ({said['type']}). "
            "An administrator can connect it by HTTP, or let another provider answer.",
        )
    )


def cli_path() -> Path:
    """Return the CLI to run: the one in the SDK's wheel, unless FLEET_CODEX_CLI names another."""
    if settings.FLEET_CODEX_CLI:
        return Path(settings.FLEET_CODEX_CLI)
    package = find_spec("codex_cli_bin")
    return Path(package.origin).parent / "bin" / "codex" if package and package.origin else Path("codex")


def configuration_directory(home: Path) -> Path:
    """Return the bot's CODEX_HOME as its CLI knows it; of what is in there, one process leaves the next what was said."""
    return home / ".codex"


def _temporary(home: Path) -> Path:
    """Return TMPDIR. The same for every run of a bot: it stands in the prompt, whose bytes the API's cache compares."""
    return home / "tmp"


def _configuration(prompt: Prompt) -> dict[str, str]:
    """Return every setting that must hold in every call; what is given here wins over any file."""
    endpoint = {
        "name": "OpenAI",
        "base_url": settings.OPENAI_BASE_URL or OPENAI_URL,
        "wire_api": "responses",
        "requires_openai_auth": True,
        "supports_websockets": False,
        "request_max_retries": 0,  # only the stream's retries count, or the two would multiply
        "stream_max_retries": RETRIES,
    }
    switches = dict.fromkeys(_OFF, False) | {"shell_tool": any(tool in SHELL_TOOLS for tool in prompt.tools)}
    ours: dict[str, Any] = {
        "model_provider": "fleet",
        "model_providers": {"fleet": endpoint},
        "model": prompt.model,
        "sandbox_mode": "workspace-write",
        "sandbox_workspace_write": {"network_access": False, "exclude_slash_tmp": True},
        # A table and no dotted name: Codex would split the path at its dots, and then trust the workspace.
        "projects": {str(prompt.workspace): {"trust_level": "untrusted"}},
        "project_doc_max_bytes": 0,
        "skills": {"include_instructions": False, "bundled": {"enabled": False}},
        "cli_auth_credentials_store": "ephemeral",  # the key stays in the CLI's memory
        "allow_login_shell": False,
        "web_search": "disabled",
        "agents": {
            "enabled": False,
            "max_depth": 0,
        },  # the feature's switch alone is overruled by what a model is known for
        "history": {"persistence": "none"},
        "analytics": {"enabled": False},
        "feedback": {"enabled": False},
        "check_for_update_on_startup": False,
        **{f"features.{name}": on for name, on in switches.items()},
    }
    return {name: _as_toml(value) for name, value in ours.items()}


def _as_toml(value: Any) -> str:
    """Return a value as TOML, which writes text, numbers and truth as JSON does; tables are inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_toml(key)} = {_as_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _environment(prompt: Prompt, configuration: Path) -> dict[str, str]:
    """Return all that the CLI and its tools see of the world: an allowlist and its own directories. The key is not in it."""
    ours = {
        "HOME": str(prompt.home),
        "PWD": str(prompt.workspace),
        "CODEX_HOME": str(configuration),
        "TMPDIR": str(_temporary(prompt.home)),
    }
    return {"PATH": _SAFE_PATH, "LANG": "C.UTF-8", **settings.FLEET_CLI_ENVIRONMENT, **ours}
