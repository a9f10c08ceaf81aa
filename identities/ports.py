"""What the texts and grants of a bot are compiled to, for whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Compiled:
    """A bot as a provider sees it, byte for byte the same for the same versions.

    `digest` is the SHA-256 (hex) over everything here; `versions` maps `soul` and `skill/<name>` to the SHA-256 of the live
    wording; `tools` are the tools it may use, sorted; `files` maps paths inside the workspace to their bytes.
    """

    slug: str
    system_prompt: str
    digest: str
    versions: dict[str, str]
    tools: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class CompiledWorkspace:
    """A compiled bot on disk: `path` is the directory it works in."""

    path: Path
    system_prompt: str
    digest: str
    versions: dict[str, str]
    tools: tuple[str, ...]
