"""The workspace: a bot's live texts as files in the directory it works in.

The bot can write there too, so nothing on that disk is trusted: no symbolic link is followed (fleet.kernel.distrusted), and a compiled
file that was changed is written again.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from fleet.kernel import distrusted
from fleet.kernel.exceptions import FleetError
from identities.models import Identity
from identities.ports import Compiled, CompiledWorkspace
from identities.queries.bots import compiled

DIGEST_FILE = ".fleet-digest"
_OURS = re.compile(r"\.claude/skills/[a-z0-9][a-z0-9-]*/SKILL\.md")


class WorkspaceUnusable(FleetError):
    """The workspace's directory is not a directory of ours."""

    code = "workspace_unusable"


def compile_workspace(*, identity: Identity, root: Path, texts: Compiled | None = None) -> CompiledWorkspace:
    """Bring `root/<slug>` up to date with `texts`, else the bot's live ones, and return it; what is right already is not written.

    The files are CLAUDE.md, .claude/skills/<name>/SKILL.md and .fleet-digest. Each is replaced in one step, skills that are no
    longer live are removed, and the bot's own files stay. Raises WorkspaceUnusable when the directory itself is a link.
    """
    wanted = texts or compiled(identity)
    path = root / wanted.slug
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            workspace = stack.enter_context(distrusted.opened(path))
        except OSError as error:
            raise WorkspaceUnusable(
                f"The workspace of {identity.name} cannot be used.",
                why=f"{path}: {error.strerror}. It has to be a directory of ours, not a link.",
                next_step="Put a plain directory there and give it to the user Fleet runs as.",
            ) from error
        _write(workspace, wanted)
    return CompiledWorkspace(path, wanted.system_prompt, wanted.digest, wanted.versions, wanted.tools)


def _write(workspace: int, wanted: Compiled) -> None:
    note = json.dumps({"digest": wanted.digest, "files": sorted(wanted.files)}, indent=1).encode() + b"\n"
    files = {**wanted.files, DIGEST_FILE: note}
    stale = [file for file in files if distrusted.read(workspace, file, at_most=len(files[file])) != files[file]]
    for file in _no_longer_live(workspace, wanted):
        with contextlib.suppress(OSError):
            distrusted.remove(workspace, file)
    for file in stale:  # the digest comes last: it is written once everything it names is there
        distrusted.replace(workspace, file, files[file])


def _no_longer_live(workspace: int, wanted: Compiled) -> list[str]:
    """Return skills we once compiled. The bot could have edited the list, so only paths of our own shape count."""
    try:
        noted = json.loads(distrusted.read(workspace, DIGEST_FILE, at_most=1_000_000) or b"{}").get("files", [])
    except (ValueError, AttributeError):
        return []
    texts = [file for file in noted if isinstance(file, str)] if isinstance(noted, list) else []
    return [file for file in texts if _OURS.fullmatch(file) and file not in wanted.files]
