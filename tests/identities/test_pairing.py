"""Pairing: a chat account becomes a person's by a one-time code, and by nothing else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
import time_machine

from fleet.kernel import clock
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import FleetError, NotFound, Refused, StateConflict
from fleet.kernel.models import JournalEntry
from identities import actions, queries
from identities.actions.pairing import ALPHABET
from identities.models import ChatAccount, PairingAttempt, PairingCode, Person
from tests.factories.identities import ChatAccountFactory, PairingCodeFactory, PersonFactory
from tests.identities.races import race

GATEWAY = Actor.system("gateway:telegram")
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def pair(code: str, external_id: str = "501") -> Person:
    """Send a code from a Telegram account."""
    return actions.pair(platform="telegram", external_id=external_id, code=code, by=GATEWAY)


@pytest.fixture
def eva(db: None) -> Person:
    """An operator."""
    return PersonFactory(username="eva")


@pytest.fixture
def code(eva: Person) -> str:
    """A fresh code of Eva's."""
    return actions.issue_pairing_code(person=eva, by=Actor.person(eva))[0]


class TestIssuing:
    def test_a_code_has_eight_characters_that_cannot_be_mistaken(self, code: str):
        assert len(code) == 8
        assert set(code) <= set(ALPHABET)
        assert not set("01IOL") & set(ALPHABET)

    def test_only_a_keyed_hash_is_kept(self, code: str):
        row = PairingCode.objects.get()
        assert code not in str(vars(row))
        assert code not in str(list(JournalEntry.objects.values()))

    def test_it_lives_an_hour(self, eva: Person):
        with time_machine.travel(NOON, tick=False):
            _, expires_at = actions.issue_pairing_code(person=eva, by=GATEWAY)
        assert expires_at == NOON + dt.timedelta(hours=1)

    def test_at_most_three_wait_at_a_time(self, eva: Person):
        for _ in range(3):
            actions.issue_pairing_code(person=eva, by=GATEWAY)

        with pytest.raises(Refused, match="3 codes are waiting") as refusal:
            actions.issue_pairing_code(person=eva, by=GATEWAY)

        assert refusal.value.code == "too_many_codes"

    def test_used_and_expired_codes_do_not_count(self, eva: Person):
        PairingCodeFactory(person=eva, used_at=clock.now())
        PairingCodeFactory(person=eva, expires_at=clock.now() - dt.timedelta(seconds=1))
        for _ in range(3):
            actions.issue_pairing_code(person=eva, by=GATEWAY)

        assert queries.pending_codes(eva).count() == 3


class TestPairing:
    def test_the_right_code_makes_the_account_the_person_s(self, eva: Person, code: str):
        assert pair(code) == eva
        assert queries.find_person("telegram", "501") == eva
        assert JournalEntry.objects.filter(
            event="identities.chat_account.paired", actor_name="gateway:telegram"
        ).exists()

    @pytest.mark.parametrize("typed", [str.lower, " {} ".format, lambda code: f"{code[:4]}-{code[4:]}"])
    def test_case_spaces_and_dashes_do_not_matter(self, eva: Person, code: str, typed: object):
        assert pair(typed(code)) == eva

    def test_the_same_number_on_another_platform_is_somebody_else(self, code: str):
        pair(code)
        assert queries.find_person("slack", "501") is None

    def test_pairing_the_same_account_again_changes_nothing(self, eva: Person, code: str):
        pair(code)
        second, _ = actions.issue_pairing_code(person=eva, by=GATEWAY)

        assert pair(second) == eva
        assert ChatAccount.objects.count() == 1


def used(eva: Person) -> str:
    code, _ = actions.issue_pairing_code(person=eva, by=GATEWAY)
    pair(code, external_id="other")
    return code


def expired(eva: Person) -> str:
    with time_machine.travel(clock.now() - dt.timedelta(hours=1, seconds=1), tick=False):
        return actions.issue_pairing_code(person=eva, by=GATEWAY)[0]


def of_somebody_switched_off(eva: Person) -> str:
    code, _ = actions.issue_pairing_code(person=eva, by=GATEWAY)
    Person.objects.filter(pk=eva.pk).update(is_active=False)
    return code


class TestWhatDoesNotPair:
    @pytest.mark.parametrize(
        "make",
        [used, expired, of_somebody_switched_off, lambda eva: "WRONGONE", lambda eva: "", lambda eva: "x" * 70_000],
        ids=["used", "expired", "switched-off person", "wrong", "empty", "huge"],
    )
    def test_a_code_that_is_no_good_pairs_nothing_and_counts_as_a_try(self, eva: Person, make: object):
        bad = make(eva)

        with pytest.raises(Refused, match="does not work") as refusal:
            pair(bad)

        assert refusal.value.code == "wrong_code"
        assert queries.find_person("telegram", "501") is None
        assert PairingAttempt.objects.filter(external_id="501").count() == 1

    def test_an_account_of_somebody_else_is_not_taken_over_and_the_code_stays_good(self, eva: Person, code: str):
        ChatAccountFactory(platform="telegram", external_id="501", person=PersonFactory(username="bob"))

        with pytest.raises(StateConflict, match="belongs to another person") as conflict:
            pair(code)

        assert "bob" not in conflict.value.sentence
        assert pair(code, external_id="502") == eva


@pytest.mark.django_db
class TestGuessing:
    @pytest.fixture(autouse=True)
    def noon(self) -> Iterator[time_machine.Traveller]:
        with time_machine.travel(NOON, tick=False) as traveller:
            yield traveller

    def guess(self, times: int, external_id: str = "501") -> list[str]:
        codes = []
        for _ in range(times):
            with pytest.raises(Refused) as refusal:
                pair("WRONGONE", external_id)
            codes.append(refusal.value.code)
        return codes

    def test_after_five_wrong_tries_even_the_right_code_is_refused(self, code: str):
        assert self.guess(6) == ["wrong_code"] * 5 + ["too_many_tries"]

        with pytest.raises(Refused, match="5 wrong codes within an hour"):
            pair(code)
        assert queries.find_person("telegram", "501") is None

    def test_another_account_is_not_punished_for_it(self, eva: Person, code: str):
        self.guess(6)
        assert pair(code, external_id="502") == eva

    def test_after_an_hour_it_may_try_again(self, eva: Person, noon: time_machine.Traveller):
        self.guess(6)
        noon.shift(dt.timedelta(hours=1, seconds=1))
        code, _ = actions.issue_pairing_code(person=eva, by=GATEWAY)

        assert pair(code) == eva

    def test_old_tries_are_not_kept_for_ever(self, noon: time_machine.Traveller):
        self.guess(5)
        noon.shift(dt.timedelta(hours=2))
        self.guess(1)

        assert PairingAttempt.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_one_code_sent_from_two_accounts_pairs_exactly_one(self):
        code, _ = actions.issue_pairing_code(person=PersonFactory(), by=GATEWAY)

        results = race(lambda: pair(code, "501"), lambda: pair(code, "502"))

        assert sorted(isinstance(result, Person) for result in results) == [False, True]
        assert ChatAccount.objects.count() == 1

    def test_a_burst_of_guesses_cannot_outrun_the_count(self):
        results = race(*[lambda: pair("WRONGONE")] * 10)

        codes = sorted(result.code for result in results if isinstance(result, FleetError))
        assert codes == ["too_many_tries"] * 5 + ["wrong_code"] * 5
        assert PairingAttempt.objects.count() == 5

    def test_a_burst_of_requests_makes_no_fourth_code(self):
        eva = PersonFactory()

        race(*[lambda: actions.issue_pairing_code(person=eva, by=GATEWAY)] * 6)

        assert queries.pending_codes(eva).count() == 3


class TestUnpairing:
    def test_an_unpaired_account_is_a_stranger_again(self, code: str):
        pair(code)
        actions.unpair(platform="telegram", external_id="501", by=GATEWAY)

        assert queries.find_person("telegram", "501") is None
        assert JournalEntry.objects.filter(event="identities.chat_account.unpaired").exists()

    @pytest.mark.django_db
    def test_what_is_not_paired_cannot_be_unpaired(self):
        with pytest.raises(NotFound):
            actions.unpair(platform="telegram", external_id="501", by=GATEWAY)
