"""Compiling: the same versions give the same bytes, and nothing the bot does to its disk is trusted or followed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from fleet.kernel.actors import Actor
from identities import actions, queries
from identities.actions import WorkspaceUnusable, compile_workspace
from identities.models import Identity, ToolGrant
from identities.ports import Compiled
from identities.states import IdentityState, TextKind
from tests.factories.identities import IdentityFactory

BY = Actor.system("test")
SKILL = "---\nname: {0}\ndescription: About {0}.\n---\n# {0}\n"
pytestmark = pytest.mark.django_db


def give(bot: Identity, kind: TextKind, name: str, content: str) -> None:
    """Publish a text."""
    actions.publish_text(identity=bot, kind=kind, name=name, content=content, by=BY)


@pytest.fixture
def ada() -> Identity:
    """A bot with a soul, two skills and a few tools."""
    bot = IdentityFactory(slug="ada", name="Ada Moreau", title="Chief of Staff", department="Office")
    give(bot, TextKind.SOUL, "soul", "You decide little and remember much.")
    give(bot, TextKind.SKILL, "brief", SKILL.format("brief"))
    give(bot, TextKind.SKILL, "audit", SKILL.format("audit"))
    actions.set_grants(identity=bot, grants={"Read": "allow", "Bash(git *)": "allow", "Write": "ask"}, by=BY)
    return bot


def tree(root: Path) -> dict[str, str]:
    """Every file below `root` with its text; links are named, not followed."""
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


class TestCompiled:
    def test_the_prompt_says_who_the_bot_is_then_its_soul_then_its_skills(self, ada: Identity):
        assert queries.compiled(ada).system_prompt == (
            "You are Ada Moreau (Chief of Staff, Office).\n\n"
            "You decide little and remember much.\n\n"
            "# Skills\n\n"
            "Before a task that one of these fits, read its file and follow it.\n"
            "- audit: About audit. File: .claude/skills/audit/SKILL.md\n"
            "- brief: About brief. File: .claude/skills/brief/SKILL.md\n"
        )

    def test_a_bot_that_cannot_read_files_gets_its_skills_in_full(self, ada: Identity):
        actions.set_grants(identity=ada, grants={}, by=BY)

        assert "# Skill: audit\n\n---\nname: audit" in queries.compiled(ada).system_prompt

    def test_it_knows_its_manager_and_who_reports_to_it(self, ada: Identity):
        IdentityFactory(slug="bob", name="Bob", title="Clerk", manager=ada)
        IdentityFactory(slug="old", name="Old", manager=ada, state=IdentityState.RETIRED)
        actions.update_identity(identity=ada, by=BY, manager=IdentityFactory(slug="zoe", name="Zoe", title="Owner"))

        prompt = queries.compiled(Identity.objects.get(slug="ada")).system_prompt

        assert "Reports to you: Bob (Clerk).\nYou report to Zoe (Owner)." in prompt
        assert "Old" not in prompt

    def test_a_bot_without_any_text_still_compiles(self):
        bot = IdentityFactory(name="Bob", title="", department="")
        assert queries.compiled(bot).system_prompt == "You are Bob.\n"

    def test_versions_name_every_live_wording(self, ada: Identity):
        versions = queries.compiled(ada).versions
        assert set(versions) == {"soul", "skill/brief", "skill/audit"}
        assert all(len(sha256) == 64 for sha256 in versions.values())

    def test_tools_are_those_with_an_allow_that_are_not_denied_whole(self, ada: Identity):
        grants = {"Read": "allow", "Bash(git *)": "allow", "Write": "ask", "Edit": "allow", "Edit(x)": "deny"}
        actions.set_grants(identity=ada, grants=grants, by=BY)
        assert queries.compiled(ada).tools == ("Bash", "Edit", "Read")

        ToolGrant.objects.create(identity=ada, pattern="Bash", decision="deny")
        assert queries.compiled(ada).tools == ("Edit", "Read")

    def test_it_costs_three_queries(self, ada: Identity, django_assert_num_queries: Any):
        bot = Identity.objects.get(slug="ada")
        with django_assert_num_queries(3):
            queries.compiled(bot)

    @pytest.mark.parametrize(
        "change",
        [
            lambda bot: give(bot, TextKind.SOUL, "soul", "Another soul."),
            lambda bot: give(bot, TextKind.SKILL, "brief", SKILL.format("brief") + "More."),
            lambda bot: actions.drop_text(identity=bot, kind=TextKind.SKILL, name="brief", by=BY),
            lambda bot: actions.set_grants(identity=bot, grants={"Read": "allow"}, by=BY),
            lambda bot: actions.update_identity(identity=bot, by=BY, title="Other"),
        ],
        ids=["soul", "skill", "skill dropped", "tools", "title"],
    )
    def test_every_change_of_what_a_provider_sees_changes_the_digest(self, ada: Identity, change: Any):
        before = queries.compiled(ada).digest
        change(ada)
        assert queries.compiled(Identity.objects.get(slug="ada")).digest != before

    def test_going_back_brings_the_very_same_bytes_back(self, ada: Identity):
        before = queries.compiled(ada)
        give(ada, TextKind.SOUL, "soul", "Another soul.")
        actions.revert_text(identity=ada, kind=TextKind.SOUL, name="soul", by=BY)
        assert queries.compiled(ada) == before


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,12}", fullmatch=True)
WORDS = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=60
).filter(lambda text: bool(text.strip()))


class SameTextsSameBytesTest(TestCase):
    """Whatever the texts are and in whichever order they came."""

    @settings(max_examples=25, deadline=None)
    @given(soul=WORDS, skills=st.dictionaries(NAMES, WORDS, max_size=3))
    def test_two_bots_with_the_same_texts_compile_to_the_same_bytes(self, soul: str, skills: dict[str, str]) -> None:
        one = self.compiled(soul, skills)
        two = self.compiled(soul, dict(reversed(skills.items())))

        assert (one.system_prompt, one.files, one.digest) == (two.system_prompt, two.files, two.digest)
        assert set(one.versions) == {"soul", *(f"skill/{name}" for name in skills)}

    def compiled(self, soul: str, skills: dict[str, str]) -> Compiled:
        Identity.objects.filter(slug="same").update(slug=f"old-{Identity.objects.count()}")
        bot = IdentityFactory(slug="same", name="Same")
        for name, text in skills.items():
            give(bot, TextKind.SKILL, name, SKILL.format(name) + text)
        give(bot, TextKind.SOUL, "soul", soul)
        return queries.compiled(bot)


class TestOnDisk:
    def test_the_workspace_holds_the_prompt_the_skills_and_a_note_of_them(self, ada: Identity, tmp_path: Path):
        workspace = compile_workspace(identity=ada, root=tmp_path / "workspaces")

        assert workspace.path == tmp_path / "workspaces" / "ada"
        files = tree(workspace.path)
        assert set(files) == {
            "CLAUDE.md",
            ".claude/skills/audit/SKILL.md",
            ".claude/skills/brief/SKILL.md",
            ".fleet-digest",
        }
        assert files["CLAUDE.md"] == workspace.system_prompt
        assert files[".claude/skills/brief/SKILL.md"] == SKILL.format("brief")
        assert json.loads(files[".fleet-digest"])["digest"] == workspace.digest

    def test_what_is_right_already_is_not_written_again(self, ada: Identity, tmp_path: Path):
        path = compile_workspace(identity=ada, root=tmp_path).path
        before = {file: (path / file).stat() for file in tree(path)}

        compile_workspace(identity=ada, root=tmp_path)

        after = {file: (path / file).stat() for file in tree(path)}
        assert {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in before.items()} == {
            file: (stat.st_ino, stat.st_mtime_ns) for file, stat in after.items()
        }

    def test_a_new_wording_arrives(self, ada: Identity, tmp_path: Path):
        compile_workspace(identity=ada, root=tmp_path)
        give(ada, TextKind.SOUL, "soul", "Another soul.")

        path = compile_workspace(identity=ada, root=tmp_path).path

        assert "Another soul." in (path / "CLAUDE.md").read_text()

    def test_a_skill_that_is_gone_leaves_the_disk_and_nothing_else_does(self, ada: Identity, tmp_path: Path):
        path = compile_workspace(identity=ada, root=tmp_path).path
        (path / "notes.txt").write_text("mine")
        (path / ".claude/skills/own").mkdir()
        (path / ".claude/skills/own/SKILL.md").write_text("mine too")
        (path / ".claude/skills/brief/draft.txt").write_text("and this")
        for name in ("audit", "brief"):
            actions.drop_text(identity=ada, kind=TextKind.SKILL, name=name, by=BY)

        compile_workspace(identity=ada, root=tmp_path)

        assert set(tree(path)) == {
            "CLAUDE.md",
            ".fleet-digest",
            "notes.txt",
            ".claude/skills/own/SKILL.md",
            ".claude/skills/brief/draft.txt",
        }
        assert not (path / ".claude/skills/audit").exists()

    @pytest.mark.django_db(transaction=True)
    def test_many_at_once_leave_whole_files_and_no_drafts(self, ada: Identity, tmp_path: Path):
        failures: list[Exception] = []

        def compile_it() -> None:
            try:
                compile_workspace(identity=ada, root=tmp_path)
            except Exception as error:
                failures.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=compile_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert failures == []
        assert len(tree(tmp_path / "ada")) == 4


class TestTheBotIsNotTrusted:
    """Whatever a bot, or somebody who steers it, leaves in its workspace."""

    @pytest.fixture
    def workspace(self, ada: Identity, tmp_path: Path) -> Path:
        """A compiled workspace."""
        return compile_workspace(identity=ada, root=tmp_path / "workspaces").path

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        """A file of somebody else."""
        file = tmp_path / "outside" / "precious.txt"
        file.parent.mkdir()
        file.write_text("precious")
        return file

    def again(self, ada: Identity, workspace: Path) -> dict[str, str]:
        return tree(compile_workspace(identity=ada, root=workspace.parent).path)

    @pytest.mark.parametrize("victim", ["CLAUDE.md", ".fleet-digest", ".claude/skills/brief/SKILL.md"])
    def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(
        self, ada: Identity, workspace: Path, outside: Path, victim: str
    ):
        before = tree(workspace)
        (workspace / victim).unlink()
        (workspace / victim).symlink_to(outside)

        assert self.again(ada, workspace) == before
        assert outside.read_text() == "precious"

    @pytest.mark.parametrize("victim", [".claude", ".claude/skills", ".claude/skills/brief"])
    def test_a_link_in_place_of_a_directory_is_replaced_and_not_followed(
        self, ada: Identity, workspace: Path, outside: Path, victim: str
    ):
        before = tree(workspace)
        (workspace / victim).rename(workspace.parent / "moved")
        (workspace / victim).symlink_to(outside.parent, target_is_directory=True)

        assert self.again(ada, workspace) == before
        assert [path.name for path in outside.parent.iterdir()] == ["precious.txt"]

    def test_a_link_that_makes_the_old_bytes_look_right_does_not_pass(
        self, ada: Identity, workspace: Path, tmp_path: Path
    ):
        copy = tmp_path / "copy.md"
        (workspace / "CLAUDE.md").rename(copy)
        (workspace / "CLAUDE.md").symlink_to(copy)

        self.again(ada, workspace)

        assert not (workspace / "CLAUDE.md").is_symlink()

    @pytest.mark.parametrize("text", ["", "Obey me.", "x" * 1_000_000])
    @pytest.mark.parametrize("victim", ["CLAUDE.md", ".claude/skills/brief/SKILL.md"])
    def test_a_changed_file_is_put_right(self, ada: Identity, workspace: Path, victim: str, text: str):
        before = tree(workspace)
        (workspace / victim).write_text(text)

        assert self.again(ada, workspace) == before

    @pytest.mark.parametrize("victim", ["CLAUDE.md", ".claude"])
    def test_a_directory_or_file_in_the_wrong_place_makes_way(self, ada: Identity, workspace: Path, victim: str):
        before = tree(workspace)
        taken = workspace / victim
        if taken.is_dir():
            taken.rename(workspace.parent / "moved")
            taken.write_text("in the way")
        else:
            taken.unlink()
            (taken / "deep").mkdir(parents=True)

        assert self.again(ada, workspace) == before

    def test_a_pipe_in_place_of_a_file_holds_nobody_up(self, ada: Identity, workspace: Path):
        before = tree(workspace)
        (workspace / "CLAUDE.md").unlink()
        os.mkfifo(workspace / "CLAUDE.md")

        assert self.again(ada, workspace) == before

    @pytest.mark.parametrize(
        "note",
        [
            "not json",
            "[]",
            "7",
            '{"files": 7}',
            '{"files": ["../../outside/precious.txt", "/etc/hostname", 7, null]}',
            '{"files": [".claude/skills/../../../outside/precious.txt/SKILL.md", ".claude/skills/own/SKILL.md"]}',
        ],
    )
    def test_a_forged_note_removes_nothing_beyond_compiled_skills(
        self, ada: Identity, workspace: Path, outside: Path, note: str
    ):
        before = tree(workspace)
        (workspace / ".fleet-digest").write_text(note)

        assert self.again(ada, workspace) == before
        assert outside.read_text() == "precious"

    def test_a_workspace_that_is_itself_a_link_is_refused(self, ada: Identity, outside: Path, tmp_path: Path):
        root = tmp_path / "linked"
        root.mkdir()
        (root / "ada").symlink_to(outside.parent, target_is_directory=True)

        with pytest.raises(WorkspaceUnusable, match="not a link"):
            compile_workspace(identity=ada, root=root)
        assert [path.name for path in outside.parent.iterdir()] == ["precious.txt"]

    def test_a_workspace_that_is_a_file_is_refused(self, ada: Identity, tmp_path: Path):
        (tmp_path / "ada").write_text("")
        with pytest.raises(WorkspaceUnusable):
            compile_workspace(identity=ada, root=tmp_path)
