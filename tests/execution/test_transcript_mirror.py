"""Claude's transcripts have a copy in PostgreSQL, from which a worker on any host goes on with the session."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from claude_agent_sdk.testing import run_session_store_conformance
from django.conf import settings as django_settings
from django.db import connection

from execution import actions, queries
from execution.engine.mirror import Mirror
from execution.models import TranscriptLine
from execution.ports import Prompt
from execution.providers.claude import mirror
from execution.sandbox import plain
from execution.states import ExecutionState
from tests.emulators.model import ModelEmulator
from tests.execution.running import Run, run, table
from tests.factories import execution as made

__all__ = ["run", "table"]


@pytest.mark.django_db(transaction=True)
async def test_the_copy_keeps_every_promise_that_the_sdk_asks_of_a_store():
    def empty() -> mirror.StoreOfSdk:
        TranscriptLine.objects.all().delete()
        return mirror.StoreOfSdk(Mirror())

    await run_session_store_conformance(lambda: asyncio.to_thread(empty))


@pytest.mark.django_db(transaction=True)
async def test_what_a_tool_writes_in_the_name_of_the_cli_reaches_no_other_session(settings):
    settings.FLEET_TRANSCRIPT_STORE = "execution.engine.mirror.Mirror"
    mirror.store.cache_clear()
    store = mirror.store_of_sdk("mine")
    mirror.store.cache_clear()
    for session in ("mine", "theirs"):
        await store.append({"project_key": "p", "session_id": session}, [{"type": "user", "uuid": session}])
    assert await asyncio.to_thread(queries.mirrored_transcript, "theirs") == {}
    assert len(await asyncio.to_thread(queries.mirrored_transcript, "mine")) == 1


@pytest.mark.django_db
def test_a_line_with_nul_and_broken_characters_comes_back_as_it_was():
    entry = {"type": "user", "uuid": str(uuid.uuid4()), "text": "a\x00b \ud83d end"}
    actions.mirror_transcript(project="p", session_id="s", path="", entries=[entry])
    ((line,),) = queries.mirrored_transcript("s").values()
    assert json.loads(line) == entry


@pytest.mark.django_db
def test_only_sessions_that_were_silent_for_long_are_forgotten():
    for session in ("old", "spoken in again", "new"):
        actions.mirror_transcript(project="p", session_id=session, path="", entries=[{"type": "user"}])
    long_ago = f"now() - interval '{django_settings.FLEET_TRANSCRIPT_DAYS + 1} days'"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE execution_transcriptline SET at = {long_ago} WHERE session_id <> 'new'")
    actions.mirror_transcript(project="p", session_id="spoken in again", path="", entries=[{"type": "user"}])
    assert actions.forget_transcripts() == 1
    assert set(TranscriptLine.objects.values_list("session_id", flat=True)) == {"spoken in again", "new"}


@pytest.fixture
def lost(settings, tmp_path: Path) -> Iterator[tuple[Prompt, Path]]:
    """A session to resume of whose transcript there is a copy of two lines, and where its file is on this host."""
    settings.FLEET_TRANSCRIPT_STORE = "execution.engine.mirror.Mirror"
    mirror.store.cache_clear()
    prompt = Prompt("", "m", tmp_path / "work", tmp_path / "home", str(uuid.uuid4()), 1)
    lines = [{"type": "user", "uuid": str(uuid.uuid4()), "text": said} for said in ("One", "Two")]
    actions.mirror_transcript(project="p", session_id=prompt.session_id, path="", entries=lines)
    mirror.put_back(prompt)
    (file,) = prompt.home.rglob("*.jsonl")
    yield prompt, file
    mirror.store.cache_clear()


@pytest.mark.django_db(transaction=True)
class TestWhatTheBotPutInTheFilesPlace:
    def test_a_huge_one_is_counted_in_pieces(self, lost: tuple[Prompt, Path]) -> None:
        """Its holes take no room on the disk. Read as a whole, they take a worker's memory, and with it all other bots' turns."""
        prompt, file = lost
        size = 200 * 1024**2
        os.truncate(file, size)
        tracemalloc.start()
        mirror.put_back(prompt)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < size // 20
        assert file.stat().st_size == size, "it has the lines of the copy, so it stays"

    def test_one_that_is_too_large_to_be_read_makes_way_for_the_copy(self, lost: tuple[Prompt, Path]) -> None:
        prompt, file = lost
        os.truncate(file, plain.LARGEST + 1)
        mirror.put_back(prompt)
        assert len(file.read_bytes().splitlines()) == 2

    @pytest.mark.parametrize("planted", ["pipe", "link"])
    def test_a_pipe_or_a_link_makes_way_as_well(self, lost: tuple[Prompt, Path], tmp_path: Path, planted: str) -> None:
        prompt, file = lost
        (tmp_path / "theirs").write_text("a\nb\nc\n")
        file.unlink()
        if planted == "pipe":
            os.mkfifo(file)
        else:
            file.symlink_to(tmp_path / "theirs")
        mirror.put_back(prompt)
        assert file.is_file() and not file.is_symlink() and len(file.read_text().splitlines()) == 2
        assert (tmp_path / "theirs").read_text() == "a\nb\nc\n"


@pytest.fixture
def mirrored(settings, model_emulator: ModelEmulator) -> None:
    """Claude with a copy of its transcripts; every turn has a CLI of its own."""
    settings.FLEET_TRANSCRIPT_STORE = "execution.engine.mirror.Mirror"
    settings.FLEET_WARM_PROCESSES = 0
    settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "sk-ant-canary-not-a-key", model_emulator.url
    mirror.store.cache_clear()
    yield
    mirror.store.cache_clear()


def on_another_host(settings, path: Path) -> None:
    settings.FLEET_HOMES, settings.FLEET_WORKSPACES = path / "homes", path / "workspaces"


def heard(emulator: ModelEmulator) -> list[str]:
    """What the model was told in its last request, people's words alone."""
    messages = emulator.requests[-1].messages
    return [
        block["text"]
        for message in messages
        if message["role"] == "user"
        for block in message["content"]
        if "text" in block
    ]


@pytest.mark.realcli
@pytest.mark.django_db(transaction=True)
class TestAnotherHost:
    def test_goes_on_with_the_session(self, run: Run, mirrored, settings, tmp_path, model_emulator) -> None:
        bot, session = made.BotFactory(), str(uuid.uuid4())
        first = run(made.queued("My name is Eva.", identity=bot, provider="claude", session_id=session))
        on_another_host(settings, tmp_path / "elsewhere")
        second = run(made.queued("Who am I?", identity=bot, provider="claude", session_id=session, session_turns=1))
        assert (first.state, second.state) == (ExecutionState.SUCCEEDED, ExecutionState.SUCCEEDED)
        assert any("My name is Eva." in text for text in heard(model_emulator))

    def test_and_the_first_host_hears_of_what_was_said_there(
        self, run: Run, mirrored, settings, tmp_path, model_emulator
    ) -> None:
        bot, session = made.BotFactory(), str(uuid.uuid4())
        here = settings.FLEET_HOMES, settings.FLEET_WORKSPACES
        run(made.queued("One", identity=bot, provider="claude", session_id=session))
        on_another_host(settings, tmp_path / "elsewhere")
        run(made.queued("Two", identity=bot, provider="claude", session_id=session, session_turns=1))
        settings.FLEET_HOMES, settings.FLEET_WORKSPACES = here
        run(made.queued("Three", identity=bot, provider="claude", session_id=session, session_turns=2))
        told = " ".join(heard(model_emulator))
        assert [word in told for word in ("One", "Two", "Three")] == [True, True, True]

    def test_branches_off_a_session_and_the_first_host_goes_on_with_the_branch(
        self, run: Run, mirrored, settings, tmp_path, model_emulator
    ) -> None:
        bot, session, branch = made.BotFactory(), str(uuid.uuid4()), str(uuid.uuid4())
        fields = {"identity": bot, "provider": "claude", "session_id": branch, "fork_of": session}
        here = settings.FLEET_HOMES, settings.FLEET_WORKSPACES
        run(made.queued("One", identity=bot, provider="claude", session_id=session))
        on_another_host(settings, tmp_path / "elsewhere")
        run(made.queued("Two", **fields))
        assert [word in " ".join(heard(model_emulator)) for word in ("One", "Two")] == [True, True]
        settings.FLEET_HOMES, settings.FLEET_WORKSPACES = here
        run(made.queued("Three", session_turns=1, **fields))
        told = " ".join(heard(model_emulator))
        assert [word in told for word in ("One", "Two", "Three")] == [True, True, True]

    def test_a_link_that_the_bot_put_in_the_way_leads_nobody_out(
        self, run: Run, mirrored, settings, tmp_path, model_emulator
    ) -> None:
        bot, session = made.BotFactory(), str(uuid.uuid4())
        run(made.queued("My name is Eva.", identity=bot, provider="claude", session_id=session))
        on_another_host(settings, tmp_path / "elsewhere")
        outside = tmp_path / "outside"
        outside.mkdir()
        (settings.FLEET_HOMES / bot.slug / ".claude").mkdir(parents=True)
        (settings.FLEET_HOMES / bot.slug / ".claude/projects").symlink_to(outside)
        second = run(made.queued("Who am I?", identity=bot, provider="claude", session_id=session, session_turns=1))
        assert second.state == ExecutionState.SUCCEEDED
        assert any("My name is Eva." in text for text in heard(model_emulator))
        assert not list(outside.iterdir())

    def test_without_a_copy_it_starts_afresh(self, run: Run, mirrored, settings, tmp_path, model_emulator) -> None:
        settings.FLEET_TRANSCRIPT_STORE = ""
        mirror.store.cache_clear()
        bot, session = made.BotFactory(), str(uuid.uuid4())
        run(made.queued("My name is Eva.", identity=bot, provider="claude", session_id=session))
        on_another_host(settings, tmp_path / "elsewhere")
        run(made.queued("Who am I?", identity=bot, provider="claude", session_id=session, session_turns=1))
        assert not any("Eva" in text for text in heard(model_emulator))
        assert not TranscriptLine.objects.exists()
