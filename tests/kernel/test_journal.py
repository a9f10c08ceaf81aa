"""The journal: append-only, in the caller's transaction, and a chain in which every tampering shows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import rfc8785
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TransactionTestCase

from fleet.kernel import events, journal
from fleet.kernel.actors import Actor
from fleet.kernel.models import JournalEntry, JournalSeal
from tests import triggers

EVA = Actor("person", "7", "eva")
SWEEP = Actor.system("sweep")


def write(count: int = 1) -> list[JournalEntry]:
    """Entries, each in a transaction of its own."""
    return [
        journal.record("tests.thing.done", by=EVA, subject=("thing", number), number=number) for number in range(count)
    ]


def faults() -> list[str]:
    """What the verifier says."""
    return [fault.sentence for fault in journal.verify()]


@pytest.mark.django_db
class TestRecording:
    def test_an_entry_says_who_did_what_to_what(self):
        journal.record("tests.thing.done", by=Actor.bot("ada"), subject=("thing", 12), colour="red")

        entry = JournalEntry.objects.get()
        assert (entry.event, entry.actor_kind, entry.actor_name) == ("tests.thing.done", "bot", "ada")
        assert (entry.subject_kind, entry.subject_id, entry.details) == ("thing", "12", {"colour": "red"})

    def test_subscribers_hear_of_it_in_the_same_transaction(self, monkeypatch: pytest.MonkeyPatch):
        heard: list[events.Event] = []
        monkeypatch.setitem(events._handlers, "tests.thing.done", [heard.append])

        journal.record("tests.thing.done", by=EVA, subject=("thing", 12), colour="red")

        assert heard == [events.Event("tests.thing.done", EVA, "thing", "12", {"colour": "red"})]

    def test_a_subscriber_that_fails_takes_the_entry_with_it(self, monkeypatch: pytest.MonkeyPatch):
        def refuse(event: events.Event) -> None:
            raise RuntimeError("no")

        monkeypatch.setitem(events._handlers, "tests.thing.done", [refuse])

        with pytest.raises(RuntimeError), transaction.atomic():
            write()

        assert not JournalEntry.objects.exists()

    def test_what_could_never_be_sealed_is_not_written(self):
        with pytest.raises(rfc8785.CanonicalizationError):
            journal.record("tests.thing.done", by=EVA, subject=("thing", 1), number=2**53 + 1)

        assert not JournalEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestAppendOnly:
    @pytest.mark.parametrize("model", [JournalEntry, JournalSeal])
    @pytest.mark.parametrize("change", ["update", "delete", "truncate"])
    def test_the_database_refuses_every_change(self, model: type[JournalEntry | JournalSeal], change: str):
        write()
        journal.seal()
        attempts: dict[str, Callable[[], object]] = {
            "update": lambda: model.objects.update(id=99),
            "delete": lambda: model.objects.all()._raw_delete("default"),
            "truncate": lambda: connection.cursor().execute(f"TRUNCATE {model._meta.db_table}"),
        }

        with pytest.raises(DatabaseError, match=r"(?i)append-only|cannot update or delete"):
            attempts[change]()

        assert model.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestSealing:
    def test_the_sealer_links_every_entry_once_in_order(self):
        first, second = write(2)

        assert journal.seal() == 2
        assert journal.seal() == 0

        one, two = JournalSeal.objects.order_by("pk")
        assert (one.entry_id, one.previous_hash) == (first.pk, journal.GENESIS)
        assert (two.entry_id, two.previous_hash) == (second.pk, one.hash)
        assert faults() == []

    def test_the_sealer_takes_no_more_than_it_is_asked_to(self):
        write(5)

        assert [journal.seal(limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert faults() == []

    def test_an_entry_waits_while_an_older_transaction_may_still_write(self):
        written, may_commit = threading.Event(), threading.Event()

        def slow_writer() -> None:
            try:
                with transaction.atomic():
                    write()
                    written.set()
                    may_commit.wait(30)
            finally:
                connection.close()

        thread = threading.Thread(target=slow_writer)
        thread.start()
        written.wait(30)
        write()

        assert journal.seal() == 0

        may_commit.set()
        thread.join(30)
        assert journal.seal() == 2
        assert list(JournalSeal.objects.order_by("pk").values_list("entry_id", flat=True)) == sorted(
            JournalEntry.objects.values_list("pk", flat=True)
        )

    def test_while_one_sealer_works_another_does_nothing(self):
        write()
        sealed: list[int] = []

        def other_sealer() -> None:
            try:
                sealed.append(journal.seal())
            finally:
                connection.close()

        with transaction.atomic():
            assert journal.seal() == 1
            thread = threading.Thread(target=other_sealer)
            thread.start()
            thread.join(30)

        assert sealed == [0]
        assert JournalSeal.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestVerifying:
    """Whoever owns the database can switch the triggers off; the chain still tells."""

    @pytest.fixture(autouse=True)
    def three_sealed_entries(self) -> None:
        write(3)
        journal.seal()

    def middle(self) -> JournalEntry:
        return JournalEntry.objects.order_by("pk")[1]

    def test_a_whole_journal_has_no_faults(self):
        assert faults() == []

    @pytest.mark.parametrize(
        "lie", [{"actor_name": "bob"}, {"event": "tests.thing.undone"}, {"details": {}}, {"subject_id": "8"}]
    )
    def test_an_edited_entry_is_found(self, lie: dict[str, object]):
        with triggers.switched_off():
            JournalEntry.objects.filter(pk=self.middle().pk).update(**lie)

        assert faults() == ["The entry is not what was sealed."]

    def test_a_deleted_entry_is_found(self):
        with triggers.switched_off():
            self.middle().delete()

        assert faults() == ["The sealed entry is gone."]

    def test_an_entry_deleted_together_with_its_seal_is_found(self):
        middle = self.middle()
        with triggers.switched_off():
            JournalSeal.objects.get(entry_id=middle.pk).delete()
            middle.delete()

        assert faults() == ["The seal does not continue the one before it."]

    def test_an_entry_put_in_between_later_is_found(self):
        with triggers.switched_off():
            JournalEntry.objects.create(
                event="tests.thing.faked",
                actor_kind="person",
                subject_kind="thing",
                transaction=JournalSeal.objects.order_by("pk")[0].transaction,
            )

        assert faults() == ["The entry was put in behind entries that were sealed already."]

    def test_exchanged_entries_are_found(self):
        first, second = JournalSeal.objects.order_by("pk")[:2]
        with triggers.switched_off():
            JournalSeal.objects.filter(pk=first.pk).update(entry_id=-1)
            JournalSeal.objects.filter(pk=second.pk).update(entry_id=first.entry_id)
            JournalSeal.objects.filter(pk=first.pk).update(entry_id=second.entry_id)

        assert faults() == ["The entry is not what was sealed."] * 2

    def test_the_chain_cannot_fork(self):
        first = JournalSeal.objects.order_by("pk")[0]

        with pytest.raises(IntegrityError):
            JournalSeal.objects.create(entry_id=999, transaction=1, previous_hash=first.previous_hash, hash="f" * 64)


PLAIN_TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=30)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | PLAIN_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN_TEXT, inner, max_size=4),
    max_leaves=12,
)


class EveryJournalIsWholeTest(TransactionTestCase):
    """Whatever plain JSON goes in comes back from the database as it was hashed."""

    @settings(max_examples=30, deadline=None)
    @given(st.lists(PLAIN_JSON, min_size=1, max_size=5))
    def test_any_details_survive_the_database_and_verify(self, details: list[object]) -> None:
        for value in details:
            journal.record("tests.thing.done", by=SWEEP, subject=("thing", 1), value=value)

        assert journal.seal() == len(details)
        assert faults() == []
