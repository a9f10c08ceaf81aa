"""The workspace: a bot's live texts as files in the directory it works in.

The bot can write there too, so nothing on that disk is trusted: every step goes through directory descriptors and never follows
a symbolic link, and a compiled file that was changed is written again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fleet.kernel.exceptions import FleetError
from identities.models import Identity
from identities.ports import Compiled, CompiledWorkspace
from identities.queries.bots import compiled

DIGEST_FILE = ".fleet-digest"
_OURS = re.compile(r"\.claude/skills/[a-z0-9][a-z0-9-]*/SKILL\.md")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        workspace = os.open(path, _DIRECTORY)
    except OSError as error:
        raise WorkspaceUnusable(
            f"The workspace of {identity.name} cannot be used.",
            why=f"{path}: {error.strerror}. It has to be a directory of ours, not a link.",
            next_step="Put a plain directory there and give it to the user Fleet runs as.",
        ) from error
    try:
        _write(workspace, wanted)
    finally:
        os.close(workspace)
    return CompiledWorkspace(path, wanted.system_prompt, wanted.digest, wanted.versions, wanted.tools)


def _write(workspace: int, wanted: Compiled) -> None:
    note = json.dumps({"digest": wanted.digest, "files": sorted(wanted.files)}, indent=1).encode() + b"\n"
    files = {**wanted.files, DIGEST_FILE: note}
    stale = [file for file in files if _read(workspace, file, at_most=len(files[file])) != files[file]]
    for file in _no_longer_live(workspace, wanted):
        _remove(workspace, PurePosixPath(file))
    for file in stale:  # the digest comes last: it is written once everything it names is there
        _replace(workspace, PurePosixPath(file), files[file])


def _no_longer_live(workspace: int, wanted: Compiled) -> list[str]:
    """Return skills we once compiled. The bot could have edited the list, so only paths of our own shape count."""
    try:
        noted = json.loads(_read(workspace, DIGEST_FILE, at_most=1_000_000) or b"{}").get("files", [])
    except (ValueError, AttributeError):
        return []
    texts = [file for file in noted if isinstance(file, str)] if isinstance(noted, list) else []
    return [file for file in texts if _OURS.fullmatch(file) and file not in wanted.files]


@contextlib.contextmanager
def _parent(workspace: int, file: PurePosixPath, *, create: bool) -> Iterator[int]:
    """Open the directory a file lies in, one step at a time; what stands in the way of ours is removed when `create`."""
    current = os.dup(workspace)
    try:
        for name in file.parts[:-1]:
            if create:
                _make_directory(current, name)
            below = os.open(name, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make_directory(parent: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)


def _read(workspace: int, file: str, *, at_most: int) -> bytes | None:
    """Return a plain file's bytes, or None when it is missing, longer, or not a plain file."""
    path = PurePosixPath(file)
    try:
        with _parent(workspace, path, create=False) as parent:
            source = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            return None
        content = os.read(source, at_most + 1)
    finally:
        os.close(source)
    return content if len(content) <= at_most else None


def _replace(workspace: int, file: PurePosixPath, content: bytes) -> None:
    draft = f".{file.name}.{secrets.token_hex(8)}"
    with _parent(workspace, file, create=True) as parent:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(draft, flags, 0o644, dir_fd=parent), "wb") as target:  # noqa: PTH123 - a descriptor
                target.write(content)
            _take_place(parent, draft, file.name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=parent)
            raise


def _take_place(parent: int, draft: str, name: str) -> None:
    """Rename over whatever is there: a link is replaced, never followed; a directory in our place goes."""
    try:
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=parent)
        os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)


def _remove(workspace: int, file: PurePosixPath) -> None:
    """Remove a compiled file, and its skill's directory when nothing else is in it."""
    with contextlib.suppress(OSError):
        with _parent(workspace, file, create=False) as parent:
            os.unlink(file.name, dir_fd=parent)
        with _parent(workspace, file.parent, create=False) as skills:
            os.rmdir(file.parent.name, dir_fd=skills)
