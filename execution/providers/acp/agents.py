"""What an installation declares about its ACP agents: the file that `FLEET_ACP_AGENTS` names, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
TAKEN = ("claude", "codex", "mock")


class BadDeclaration(ValueError):
    """The file says something we cannot use; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. `model` is what it is priced as and answers with; `models` how the names begin that it takes besides.

    `environment` are variables in clear. `secrets` are variables whose values are variables of ours: {"ITS_KEY": "OUR_KEY"}; `pipes`
    are likewise, but the agent's variable is the number of a descriptor from which the value can be read once.
    `session` goes into `_meta` when a session is opened; a text there that is exactly "{system_prompt}", "{model}" or "{tools}"
    is replaced. `mode` is the session mode to switch to, the one in which it asks before it acts. `model_url` is the variable that
    says where its model's API is: without it the agent cannot be checked. `api` is that address where no variable says it, for its
    sandbox; `reads` are the files and directories outside of the system that it runs from.
    """

    name: str
    command: tuple[str, ...]
    model: str
    models: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    pipes: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)
    mode: str = ""
    model_url: str = ""
    api: str = ""
    reads: tuple[str, ...] = ()
    subscription: bool = False

    @property
    def address(self) -> str:
        """Return where its model's API is; empty when the declaration does not say."""
        return self.api or self.environment.get(self.model_url, "")

    @property
    def keys(self) -> tuple[str, ...]:
        """Return those variables of ours that it needs."""
        return (*self.secrets.values(), *self.pipes.values())

    @property
    def takes_system_prompt(self) -> bool:
        """Return whether the system prompt has its own place; otherwise it stands before the first message."""
        return SYSTEM_PROMPT in json.dumps(self.session)


SYSTEM_PROMPT = "{system_prompt}"
_KINDS: dict[str, type] = {
    **dict.fromkeys(("model", "models", "mode", "model_url", "api"), str),
    **dict.fromkeys(("environment", "secrets", "pipes", "session"), dict),
    **dict.fromkeys(("command", "reads"), list),
    "subscription": bool,
}


def read(path: str) -> dict[str, Agent]:
    """Return the agents declared in a JSON file, by name; none without a file. Raises BadDeclaration."""
    if not path:
        return {}
    try:
        declared = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BadDeclaration(f"FLEET_ACP_AGENTS names {path}, which cannot be read as JSON: {error}.") from error
    if not isinstance(declared, dict):
        raise BadDeclaration(f"{path} must be an object that has an agent under each name.")
    return {name: _agent(name, said, path) for name, said in declared.items()}


def _agent(name: str, said: Any, path: str) -> Agent:
    where = f"The agent “{name}” in {path}"
    if not _NAME.fullmatch(name) or name in TAKEN:
        raise BadDeclaration(
            f"{where} needs another name: at most twenty small letters, digits and dashes, and none of ours."
        )
    if not isinstance(said, dict):
        raise BadDeclaration(f"{where} must be an object.")
    known = {field.name for field in fields(Agent)} - {"name"}
    if strange := said.keys() - known:
        raise BadDeclaration(
            f"{where} has {', '.join(sorted(strange))}, which nothing reads. Known are {', '.join(sorted(known))}."
        )
    for key, value in said.items():
        if not isinstance(value, _KINDS[key]):
            raise BadDeclaration(f"{where} has a {key} that is no {_KINDS[key].__name__}.")
    if not said.get("command") or not said.get("model"):
        raise BadDeclaration(f"{where} needs a command and the model by which it is priced.")
    lists = {key: tuple(str(word) for word in said[key]) for key in ("command", "reads") if key in said}
    return Agent(name, **{**said, **lists})
