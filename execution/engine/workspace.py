"""Where a bot works, and what its provider is told: everything that stands before the prompt itself."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from execution.models import Execution
from execution.ports import Prompt
from identities import actions as identity_actions
from identities import queries as identity_queries
from identities.models import Identity
from identities.ports import Compiled

_on_disk: dict[str, str] = {}  # slug → digest of the workspace this process last saw there


def prompt_for(execution: Execution) -> Prompt:
    """Return what the provider needs for this execution; its workspace is written only when the bot's texts have moved."""
    identity = execution.identity
    compiled = identity_queries.compiled(identity)
    return Prompt(
        execution_id=execution.pk,
        system_prompt=compiled.system_prompt,
        model=execution.model,
        workspace=_workspace(identity, compiled),
        home=Path(settings.FLEET_HOMES) / identity.slug,
        session_id=execution.session_id,
        resume=execution.resume,
        effort=identity.effort,
        max_turns=identity.max_turns,
        max_seconds=identity.max_minutes * 60,
        max_tool_calls=identity.max_tool_calls,
        tools=compiled.tools,
    )


def _workspace(identity: Identity, compiled: Compiled) -> Path:
    root = Path(settings.FLEET_WORKSPACES)
    path = root / identity.slug
    if _on_disk.get(identity.slug) != compiled.digest or not path.is_dir():
        path = identity_actions.compile_workspace(identity=identity, root=root).path
        _on_disk[identity.slug] = compiled.digest
    return path
