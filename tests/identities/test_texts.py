"""Souls and skills: every wording stays for ever, a pointer says which one lives."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, NotFound, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions
from identities.models import Identity, TextPointer, TextVersion
from identities.queries.bots import skill_description
from identities.states import TextKind
from tests.factories.identities import IdentityFactory, TextPointerFactory, TextVersionFactory
from tests.identities.races import race

BY = Actor("person", "7", "eva")
SKILL = "---\nname: brief\ndescription: Writes the brief.\n---\n# Brief\n"
pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> Identity:
    """A bot without texts."""
    return IdentityFactory(slug="ada")


def publish(bot: Identity, content: str, **options: Any) -> TextVersion:
    """Publish a soul."""
    return actions.publish_text(
        **{"identity": bot, "kind": TextKind.SOUL, "name": "soul", "content": content, "by": BY, **options}
    )


def live(bot: Identity) -> str:
    """The live soul."""
    return TextPointer.objects.get(identity=bot, kind=TextKind.SOUL).live.content


class TestPublishing:
    def test_the_first_wording_lives_at_once(self, ada: Identity):
        version = publish(ada, "You are Ada.")

        assert live(ada) == "You are Ada.\n"
        assert (version.author, version.parent, version.sha256) == ("eva", None, TextVersion.hash_of("You are Ada.\n"))

    def test_the_next_one_remembers_what_it_came_from(self, ada: Identity):
        first = publish(ada, "One.")
        second = publish(ada, "Two.")

        pointer = TextPointer.objects.get()
        assert (pointer.live, pointer.previous, second.parent) == (second, first, first)
        assert TextVersion.objects.count() == 2

    def test_the_live_wording_again_is_no_change(self, ada: Identity):
        assert publish(ada, "One.") == publish(ada, "One.\r\n")
        assert JournalEntry.objects.count() == 1

    def test_an_old_wording_again_is_the_same_version(self, ada: Identity):
        first = publish(ada, "One.")
        publish(ada, "Two.")

        assert publish(ada, "One.") == first
        assert live(ada) == "One.\n"
        assert TextVersion.objects.count() == 2

    @pytest.mark.parametrize("ending", ["\r\n", "\n", "\n\n\n", ""])
    def test_line_ends_are_made_the_same(self, ada: Identity, ending: str):
        assert publish(ada, f"One.{ending}Two.{ending}").content.endswith("Two.\n")
        assert "\r" not in live(ada)

    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            ({"content": " \n "}, "empty"),
            ({"content": "x" * 70_000}, "longer than 64 KiB"),
            ({"content": "é" * 40_000}, "longer than 64 KiB"),
            ({"kind": TextKind.SKILL, "name": "brief", "content": "# Brief"}, "description"),
            ({"kind": TextKind.SKILL, "name": "brief", "content": "---\n: [\n---\n# Brief"}, "description"),
            ({"name": "../soul"}, "cannot be stored"),
            ({"content": "with \x00 inside"}, "NUL"),
        ],
        ids=["empty", "long", "long in bytes", "no front matter", "broken front matter", "path", "nul"],
    )
    def test_what_cannot_be_a_text_is_explained_and_changes_nothing(
        self, ada: Identity, wrong: dict[str, Any], why: str
    ):
        publish(ada, "One.")

        with pytest.raises(Invalid, match=why):
            publish(ada, **{"content": "Two.", **wrong})

        assert live(ada) == "One.\n"
        assert TextVersion.objects.count() == 1


class TestGoingBack:
    def test_a_text_can_be_changed_back_and_forth(self, ada: Identity):
        publish(ada, "One.")
        publish(ada, "Two.")

        actions.revert_text(identity=ada, kind=TextKind.SOUL, name="soul", by=BY)
        assert live(ada) == "One.\n"
        actions.revert_text(identity=ada, kind=TextKind.SOUL, name="soul", by=BY)
        assert live(ada) == "Two.\n"

    def test_the_first_wording_has_nothing_before_it(self, ada: Identity):
        publish(ada, "One.")
        with pytest.raises(StateConflict, match="no earlier wording"):
            actions.revert_text(identity=ada, kind=TextKind.SOUL, name="soul", by=BY)

    def test_a_text_taken_away_keeps_its_versions(self, ada: Identity):
        publish(ada, SKILL, kind=TextKind.SKILL, name="brief")

        actions.drop_text(identity=ada, kind=TextKind.SKILL, name="brief", by=BY)

        assert not TextPointer.objects.exists()
        assert TextVersion.objects.count() == 1

    def test_a_text_that_is_not_there_cannot_be_moved(self, ada: Identity):
        with pytest.raises(NotFound):
            actions.drop_text(identity=ada, kind=TextKind.SKILL, name="brief", by=BY)

    def test_every_move_is_journalled_with_the_version(self, ada: Identity):
        first = publish(ada, "One.")
        publish(ada, "Two.")
        actions.revert_text(identity=ada, kind=TextKind.SOUL, name="soul", by=BY)

        entry = JournalEntry.objects.latest("pk")
        assert (entry.event, entry.details["sha256"]) == ("identities.text.reverted", first.sha256)


class TestTheDatabase:
    @pytest.mark.parametrize("change", [{"content": "Other."}, {"author": "bob"}, {"sha256": "0" * 64}])
    def test_a_version_never_changes(self, change: dict[str, str]):
        version = TextVersionFactory()
        with pytest.raises(DatabaseError, match="Cannot update or delete"):
            TextVersion.objects.filter(pk=version.pk).update(**change)

    def test_a_version_is_never_removed(self):
        version = TextVersionFactory()
        with pytest.raises(DatabaseError, match="Cannot update or delete"):
            version.delete()

    def test_one_wording_is_one_row(self):
        version = TextVersionFactory()
        with pytest.raises(IntegrityError, match="text_version_once"):
            TextVersionFactory(identity=version.identity, content=version.content)

    def test_one_wording_of_a_shared_skill_is_one_row_too(self):
        TextVersionFactory(identity=None, kind=TextKind.SKILL, name="brief", content=SKILL)
        with pytest.raises(IntegrityError, match="text_version_once"):
            TextVersionFactory(identity=None, kind=TextKind.SKILL, name="brief", content=SKILL)

    def test_one_text_has_one_pointer(self):
        pointer = TextPointerFactory()
        with pytest.raises(IntegrityError, match="one_pointer_per_text"):
            TextPointerFactory(live=pointer.live)

    @pytest.mark.parametrize("name", ["../x", ".x", "X", "a/b", ""])
    def test_a_name_is_a_folder_name(self, name: str):
        with pytest.raises(IntegrityError, match="text_name_is_a_folder_name"):
            TextVersionFactory(name=name)

    def test_a_live_version_cannot_be_cut_off_from_its_pointer(self):
        pointer = TextPointerFactory()
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("DELETE FROM identities_textversion WHERE id = %s", [pointer.live_id])


@pytest.mark.django_db(transaction=True)
def test_people_publishing_at_the_same_time_leave_one_line_of_versions():
    bot = IdentityFactory()

    race(*[lambda number=number: publish(bot, f"Wording {number}.") for number in range(6)])

    assert TextVersion.objects.count() == 6
    assert TextVersion.objects.filter(parent=None).count() == 1
    assert TextPointer.objects.get().previous == TextPointer.objects.get().live.parent


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (SKILL, "Writes the brief."),
        ("---\ndescription: |\n  Two\n  lines\n---\nx", "Two lines"),
        ("# no front matter", ""),
        ("---\nname: x\n---\nx", ""),
        ("---\n- a list\n---\nx", ""),
        ("---\nnever closed", ""),
    ],
)
def test_the_description_of_a_skill_is_read_from_its_front_matter(content: str, description: str):
    assert skill_description(content) == description
