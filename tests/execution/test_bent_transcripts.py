"""A transcript lies where the bot's tools can write. Whatever a bot puts in its place, no worker waits for it or follows it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from execution.providers.claude import transcripts as of_claude
from execution.providers.codex import transcripts as of_codex
from execution.providers.codex.threads import THREADS, Threads

pytestmark = pytest.mark.timeout(120)
SAID = json.dumps({"type": "user", "uuid": "u"}) + "\n"


def link(path: Path) -> None:
    other = path.parent / "another-bots"
    other.write_text(SAID)
    path.symlink_to(other)


BENT = pytest.mark.parametrize(
    "bend", [os.mkfifo, link], ids=["a pipe that nobody writes to", "a link to a file of another bot"]
)


@BENT
def test_of_claude_nothing_is_recovered_from_what_is_no_file(tmp_path: Path, bend: Callable[[Path], None]) -> None:
    (tmp_path / "projects" / "p").mkdir(parents=True)
    bend(tmp_path / "projects" / "p" / "s.jsonl")
    with pytest.raises(OSError):
        of_claude.recover(tmp_path, "s", "u")


@BENT
def test_of_codex_nothing_is_recovered_from_what_is_no_file(tmp_path: Path, bend: Callable[[Path], None]) -> None:
    (tmp_path / THREADS).mkdir()
    (tmp_path / THREADS / "s.json").write_text(json.dumps({"id": "t", "used": {}}))
    (tmp_path / "sessions").mkdir()
    bend(tmp_path / "sessions" / "rollout-1-t.jsonl")
    with pytest.raises(OSError):
        of_codex.recover(tmp_path, "s", "u")
    with pytest.raises(OSError):
        Threads(tmp_path).has_message("s", "u")


@BENT
def test_a_thread_is_unknown_when_its_note_is_no_file(tmp_path: Path, bend: Callable[[Path], None]) -> None:
    (tmp_path / THREADS).mkdir()
    bend(tmp_path / THREADS / "s.json")
    assert Threads(tmp_path).find("s") is None


def test_a_plain_transcript_is_read(tmp_path: Path) -> None:
    (tmp_path / "projects" / "p").mkdir(parents=True)
    (tmp_path / "projects" / "p" / "s.jsonl").write_text(SAID)
    found = of_claude.recover(tmp_path, "s", "u")
    assert found is not None and found.text == ""
