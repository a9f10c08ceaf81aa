"""What the documents name exists: commands, addresses of the API, settings, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.urls import Resolver404, resolve

from tests.architecture.source import ROOT

DOCUMENTS = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.exists())
_COMMAND = re.compile(r"manage\.py ([a-z_]+)")
_ADDRESS = re.compile(r"(?<![\w.])(/(?:api/[\w/<>{}.-]*|message|healthz|readyz|metrics))(?=[\s`?\"')]|$)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_SETTING = re.compile(r"\b(FLEET_[A-Z_]+[A-Z])\b")


def mentioned(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield (document, what it mentions)."""
    for path in DOCUMENTS:
        for found in pattern.findall(path.read_text()):
            yield str(path.relative_to(ROOT)), found


@pytest.mark.parametrize(("document", "command"), sorted(set(mentioned(_COMMAND))))
def test_commands_exist(document: str, command: str) -> None:
    assert command in get_commands(), document


@pytest.mark.parametrize(("document", "address"), sorted(set(mentioned(_ADDRESS))))
def test_addresses_lead_somewhere(document: str, address: str) -> None:
    try:
        resolve(re.sub(r"[<{]\w+[>}]", "1", address))
    except Resolver404:
        pytest.fail(f"{document} names {address}")


@pytest.mark.parametrize(("document", "target"), sorted(set(mentioned(_LINK))))
def test_links_lead_to_files(document: str, target: str) -> None:
    assert ((ROOT / document).parent / target).exists(), document


def test_settings_are_read_somewhere() -> None:
    sources = [ROOT / "fleet/settings/base.py", *(ROOT / "fleet/platform").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    unread = {
        f"{document}: {name}" for document, name in mentioned(_SETTING) if name not in text and not _per_bot(name)
    }

    assert unread == set()


def _per_bot(name: str) -> bool:
    return name.startswith("FLEET_TELEGRAM_")


def test_every_document_begins_with_a_heading() -> None:
    bare: list[Path] = [path for path in DOCUMENTS if not path.read_text().lstrip().startswith(("#", "<"))]

    assert bare == []
