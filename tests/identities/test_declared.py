"""The fleet as one file: exported, compared, applied, and the sample company that ships."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from genai_prices import Usage, calc_price

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions, queries
from identities.actions.declared import SAMPLE
from identities.models import Identity, Person, TextVersion
from identities.queries.declared import BotDeclaration, Change, differences
from identities.states import IdentityState
from tests.factories.identities import IdentityFactory, PersonFactory

BY = Actor.system("test")
SKILL = "---\nname: brief\ndescription: Writes the brief.\n---\n# Brief\n"
pytestmark = pytest.mark.django_db


def bot(slug: str = "ada", **fields: Any) -> BotDeclaration:
    """A declared bot."""
    return BotDeclaration(slug=slug, name=slug.title(), **fields)


def apply(*declared: BotDeclaration) -> list[Change]:
    """Apply a declaration."""
    return actions.apply_fleet(declared=declared, by=BY)


class TestApplying:
    def test_a_new_bot_comes_with_everything_it_is_declared_with(self):
        apply(
            bot(title="Chief", soul="You are Ada.\n", skills={"brief": SKILL}, tools={"Read": "allow"}, concurrency=2)
        )

        ada = Identity.objects.get()
        assert (ada.title, ada.state, ada.concurrency) == ("Chief", "active", 2)
        assert set(queries.compiled(ada).versions) == {"soul", "skill/brief"}
        assert queries.compiled(ada).tools == ("Read",)

    def test_applying_it_again_changes_nothing(self):
        wanted = [bot(soul="You are Ada.\n", tools={"Read": "allow"}), bot("bob", manager="ada", state="paused")]
        apply(*wanted)
        entries = JournalEntry.objects.count()

        assert apply(*wanted) == []
        assert JournalEntry.objects.count() == entries

    def test_only_what_differs_is_changed(self):
        apply(bot(title="Clerk", soul="You are Ada.\n"))

        assert apply(bot(title="Chief", soul="You are Ada.\n")) == [Change("ada", "title", "Clerk", "Chief")]
        assert TextVersion.objects.count() == 1

    def test_what_is_no_longer_declared_of_a_bot_goes(self):
        apply(bot(soul="You are Ada.\n", skills={"brief": SKILL}, tools={"Read": "allow"}))

        apply(bot())

        ada = Identity.objects.get()
        assert queries.compiled(ada).versions == {}
        assert not ada.grants.exists()

    def test_bots_it_does_not_name_stay_as_they_are(self):
        IdentityFactory(slug="zoe")
        apply(bot())
        assert Identity.objects.filter(slug="zoe", state="active").exists()

    def test_a_bot_may_be_declared_before_its_manager(self):
        apply(bot("bob", manager="ada"), bot("ada"))
        assert Identity.objects.get(slug="bob").manager.slug == "ada"

    def test_manager_and_report_can_change_places(self):
        apply(bot("ada"), bot("bob", manager="ada"))
        apply(bot("bob"), bot("ada", manager="bob"))
        assert Identity.objects.get(slug="ada").manager.slug == "bob"

    @pytest.mark.parametrize(
        ("before", "after"),
        [("active", "paused"), ("paused", "active"), ("draft", "paused"), ("draft", "active"), ("paused", "retired")],
    )
    def test_a_bot_is_brought_to_its_declared_state_by_its_own_steps(self, before: str, after: str):
        IdentityFactory(slug="ada", state=before)
        apply(bot(state=after))
        assert Identity.objects.get().state == after

    def test_an_owner_that_is_not_named_stays(self):
        IdentityFactory(slug="ada", owner=PersonFactory(username="eva"))
        apply(bot())
        assert Identity.objects.get().owner.username == "eva"

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"manager": "nobody"}, Invalid),
            ({"owner": "nobody"}, NotFound),
            ({"state": "asleep"}, StateConflict),
            ({"model": ""}, Invalid),
            ({"tools": {"Read": "perhaps"}}, ValueError),
            ({"skills": {"brief": "no front matter\n"}}, Invalid),
            ({"skills": {"../brief": SKILL}}, Invalid),
        ],
        ids=str,
    )
    def test_a_declaration_that_cannot_be_changes_nothing_at_all(self, wrong: dict[str, Any], error: type[Exception]):
        with pytest.raises(error):
            apply(bot("bob"), bot("ada", **wrong))
        assert not Identity.objects.exists()

    def test_a_retired_bot_is_not_called_back(self):
        IdentityFactory(slug="ada", state=IdentityState.RETIRED)
        with pytest.raises(StateConflict, match="is retired and cannot become active"):
            apply(bot())


class TestTheFile:
    def test_what_is_exported_reads_back_as_the_same_fleet(self):
        apply(
            bot(
                title="Chief: of “Staff”",
                soul="First line.\n\n  Indented: yes # no comment\n",
                skills={"brief": SKILL},
                tools={"Bash(git *)": "ask"},
                providers=("claude", "mock"),
                max_tool_calls=0,
            ),
            bot("bob", manager="ada", state="retired"),
        )
        current = queries.declared_fleet()

        text = actions.write_declaration(current)

        assert actions.read_declaration(text) == current
        assert actions.write_declaration(actions.read_declaration(text)) == text
        assert "soul: |" in text

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "It is not a fleet"),
            ("version: 2\nbots: []", "version: 1"),
            ("version: 1\nbots: {}", "list of `bots`"),
            ("a: [", "It is not YAML"),
            ("version: 1\nbots: [7]", "at least `slug` and `name`"),
            ("version: 1\nbots: [{slug: ada}]", "at least `slug` and `name`"),
            ("version: 1\nbots: [{slug: ada, name: Ada, modle: x}]", "unknown keys: modle"),
            ("version: 1\nbots: [{slug: ada, name: Ada, limits: {turns: many}}]", "`turns` is a whole number"),
            ("version: 1\nbots: [{slug: ada, name: Ada, limits: {turns: -1}}]", "`turns` is a whole number"),
            ("version: 1\nbots: [{slug: ada, name: Ada, limits: {hours: 1}}]", "`limits`"),
            ("version: 1\nbots: [{slug: ada, name: Ada, tools: [Read]}]", "are mappings"),
            ("version: 1\nbots: [{slug: ada, name: Ada}, {slug: ada, name: Eva}]", "there twice: .*\n?.*ada"),
            ("!!python/object/apply:os.system ['true']", "It is not YAML"),
        ],
    )
    def test_a_file_that_cannot_be_read_says_what_is_wrong_with_it(self, text: str, why: str):
        with pytest.raises(Invalid, match=why):
            actions.read_declaration(text)


class TestTheCommand:
    def run(self, *arguments: str) -> str:
        out = io.StringIO()
        call_command("fleet", *arguments, stdout=out)
        return out.getvalue()

    def test_a_dry_run_shows_what_would_change_and_changes_nothing(self, tmp_path: Path):
        IdentityFactory(slug="ada", name="Ada", title="Clerk", department="")
        file = tmp_path / "fleet.yaml"
        file.write_text("version: 1\nbots: [{slug: ada, name: Ada, title: Chief, soul: 'One.\n\nTwo.'}]")

        shown = self.run("apply", str(file), "--dry-run")

        assert "ada: title: Clerk -> Chief" in shown
        assert "ada: soul:\n    @@" in shown
        assert "+Two." in shown
        assert "2 changes, none made (dry run)." in shown
        assert Identity.objects.get().title == "Clerk"
        assert not Person.objects.exists()

    def test_applying_shows_the_same_and_does_it_once(self, tmp_path: Path):
        file = tmp_path / "fleet.yaml"
        file.write_text("version: 1\nbots: [{slug: ada, name: Ada}]")

        assert "ada: name: (not there) -> Ada" in self.run("apply", str(file))
        assert self.run("apply", str(file)) == "0 changes.\n"
        assert Identity.objects.get().owner.username == "operator"

    def test_an_export_can_be_applied_elsewhere(self, tmp_path: Path):
        apply(bot(soul="You are Ada.\n"))
        file = tmp_path / "fleet.yaml"
        file.write_text(self.run("export"))

        assert self.run("apply", str(file)) == "0 changes.\n"

    @pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", None])
    def test_a_bad_file_is_one_sentence(self, tmp_path: Path, content: bytes | None):
        file = tmp_path / "fleet.yaml"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CommandError):
            self.run("apply", str(file))


class TestTheSampleCompany:
    @pytest.fixture
    def declared(self) -> list[BotDeclaration]:
        """The file that ships."""
        return actions.read_declaration(SAMPLE.read_text())

    def test_it_has_fourteen_bots_and_ada_leads_them(self, declared: list[BotDeclaration]):
        assert len({bot.slug for bot in declared}) == len({bot.name for bot in declared}) == 14
        assert (declared[0].slug, declared[0].title, declared[0].manager) == ("ada", "Chief of Staff", "")

    def test_everybody_else_reports_to_somebody_and_in_the_end_to_ada(self, declared: list[BotDeclaration]):
        managers = {bot.slug: bot.manager for bot in declared}
        for slug in managers.keys() - {"ada"}:
            line = [slug]
            while managers[line[-1]]:
                line.append(managers[line[-1]])
                assert len(line) <= 14
            assert line[-1] == "ada"

    def test_every_soul_is_its_own_and_long_enough_to_be_somebody(self, declared: list[BotDeclaration]):
        lines = [line for bot in declared for line in bot.soul.splitlines()]
        assert len(lines) == len(set(lines))
        assert all(5 <= len(bot.soul.splitlines()) <= 15 for bot in declared)
        assert sum(bool(bot.skills) for bot in declared) >= 7

    def test_every_model_has_a_known_price(self, declared: list[BotDeclaration]):
        for model in {bot.model for bot in declared}:
            price = calc_price(Usage(input_tokens=1000, output_tokens=1000), model_ref=model, provider_id="anthropic")
            assert price.total_price > 0

    def test_nobody_may_run_any_command_unasked(self, declared: list[BotDeclaration]):
        assert all(bot.tools.get("Bash") != "allow" for bot in declared)

    def test_an_empty_house_gets_it_once_with_an_operator_as_owner(self, declared: list[BotDeclaration]):
        assert actions.seed_fleet(by=BY) == 14
        assert actions.seed_fleet(by=BY) == 0

        assert Identity.objects.filter(state="active", owner__username="operator").count() == 14
        assert Identity.objects.order_by("pk")[0].slug == "ada"
        assert list(differences(queries.declared_fleet(), declared)) == []

    def test_a_house_with_a_bot_is_left_alone(self):
        IdentityFactory()
        assert actions.seed_fleet(by=BY) == 0
        assert Identity.objects.count() == 1


class TestTheOtherCommands:
    def run(self, *arguments: str) -> str:
        out = io.StringIO()
        call_command(*arguments, stdout=out)
        return out.getvalue()

    def test_seed_fleet(self):
        assert self.run("seed_fleet") == "14 bots came.\n"
        assert "nothing was changed" in self.run("seed_fleet")

    def test_create_person_and_signin_link(self):
        assert "signin_link --user eva" in self.run("create_person", "eva", "--role", "operator", "--role", "approver")
        assert Person.objects.get(username="eva").roles == ["operator", "approver"]

        link = self.run("signin_link", "--user", "eva").strip()
        token = link.removesuffix("/").rpartition("/")[2]
        assert queries.find_sign_in_link(token).person.username == "eva"

    def test_signin_link_without_a_name_is_for_the_first_administrator(self):
        link = self.run("signin_link").strip()
        assert queries.find_sign_in_link(link.removesuffix("/").rpartition("/")[2]).person.username == "operator"

    @pytest.mark.parametrize("arguments", [("signin_link", "--user", "nobody"), ("create_person", "a b")])
    def test_what_cannot_be_done_is_one_sentence(self, arguments: tuple[str, ...]):
        with pytest.raises(CommandError):
            self.run(*arguments)
