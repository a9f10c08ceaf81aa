"""Accounts: a bot's token on a platform, and whether it is served."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid, StateConflict
from fleet.kernel.models import JournalEntry
from fleet.kernel.secrets import SecretUnreadable
from gateways import actions, queries
from gateways.models import GatewayAccount
from gateways.states import AccountState
from identities.models import Identity
from tests.factories.gateways import GatewayAccountFactory
from tests.factories.identities import IdentityFactory

BY = Actor.system("test")
TOKEN = "1001:first-token"
pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return IdentityFactory(slug="ada", name="Ada")


def set_token(identity, token=TOKEN):
    return actions.set_token(identity=identity, platform="telegram", token=token, by=BY)


def events_of(account):
    rows = JournalEntry.objects.filter(subject_kind="gateway_account", subject_id=account.key)
    return list(rows.order_by("pk").values_list("event", flat=True))


def test_a_token_opens_the_account_and_is_kept_sealed(ada):
    account = set_token(ada)
    assert account.key == "telegram:ada"
    assert account.read_token() == TOKEN
    assert TOKEN.encode() not in bytes(GatewayAccount.objects.get().token_sealed)
    assert events_of(account) == ["gateways.account.opened", "gateways.token.set"]


def test_no_token_ever_stands_in_the_journal(ada):
    set_token(ada)
    actions.take_over_tokens({"ada": "1001:second-token"}, by=BY)
    assert not JournalEntry.objects.filter(details__icontains='token"').exists()
    assert all("1001" not in str(entry.details) for entry in JournalEntry.objects.all())


def test_the_same_token_again_changes_nothing(ada):
    account = set_token(ada)
    before = events_of(account)
    set_token(ada)
    assert events_of(account) == before


def test_spaces_around_a_pasted_token_do_not_matter(ada):
    assert set_token(ada, f"  {TOKEN}\n").read_token() == TOKEN


@pytest.mark.parametrize("text", ["", "hello", "1001:", ":abc", "1001:abc def", "1001:abc/../x", "1" * 30 + ":abc"])
def test_what_is_no_token_is_refused_with_a_sentence(ada, text):
    with pytest.raises(Invalid, match=r"not a Telegram token.*BotFather"):
        set_token(ada, text)
    assert not GatewayAccount.objects.exists()


def test_a_token_belongs_to_one_bot(ada):
    set_token(ada)
    with pytest.raises(StateConflict, match="Ada uses it"):
        set_token(IdentityFactory(slug="bob"))
    assert GatewayAccount.objects.get().key == "telegram:ada"


def test_a_token_sealed_for_one_account_does_not_open_in_another(ada):
    stolen = GatewayAccountFactory(identity=IdentityFactory(slug="bob"))
    stolen.token_sealed = set_token(ada).token_sealed
    with pytest.raises(SecretUnreadable):
        stolen.read_token()


def test_a_refused_account_waits_for_a_new_token(ada):
    account = set_token(ada)
    actions.reject(key=account.key, token_hash=account.token_hash, sentence="Refused.", by=BY)
    account.refresh_from_db()
    assert (account.state, account.sentence) == (AccountState.REJECTED, "Refused.")
    assert queries.accounts_to_serve() == []

    set_token(ada, "1001:new-token")
    account.refresh_from_db()
    assert (account.state, account.sentence) == (AccountState.ACTIVE, "")
    assert [served.key for served in queries.accounts_to_serve()] == ["telegram:ada"]


def test_a_late_refusal_of_the_old_token_does_not_hit_the_new_one(ada):
    old = set_token(ada).token_hash
    set_token(ada, "1001:new-token")
    actions.reject(key="telegram:ada", token_hash=old, sentence="Refused.", by=BY)
    assert GatewayAccount.objects.get().state == AccountState.ACTIVE


def test_an_account_switched_off_is_not_served_until_it_is_switched_on(ada):
    account = set_token(ada)
    actions.switch_off(account, by=BY)
    assert queries.accounts_to_serve() == []
    actions.activate(account, by=BY)
    assert len(queries.accounts_to_serve()) == 1


def test_a_new_token_forgets_the_name_of_the_old_bot(ada):
    set_token(ada)
    actions.introduce(key="telegram:ada", username="ada_bot", by=BY)
    assert set_token(ada, "1001:new-token").username == ""


def test_a_report_is_written_once(ada):
    account = set_token(ada)
    for _ in range(3):
        actions.report(key=account.key, sentence="Telegram does not answer.", by=BY)
    actions.report(key=account.key, sentence="", by=BY)
    assert events_of(account).count("gateways.account.reported") == 2


def test_the_database_wants_a_reason_for_a_refused_account(ada):
    account = set_token(ada)
    with pytest.raises(IntegrityError, match="rejected_account_says_why"), transaction.atomic():
        GatewayAccount.objects.filter(pk=account.pk).update(state=AccountState.REJECTED)


@pytest.mark.parametrize("source", AccountState.values)
@pytest.mark.parametrize("target", AccountState.values)
def test_the_database_knows_the_steps(ada, source, target):
    from gateways.states import ACCOUNT

    account = GatewayAccountFactory(identity=ada, state=source, sentence="why")
    step = GatewayAccount.objects.filter(pk=account.pk)
    if source == target or ACCOUNT.allows(source, target):
        step.update(state=target)
    else:
        with pytest.raises(Exception, match="Invalid transition"), transaction.atomic():
            step.update(state=target)


class TestTokensOfTheEnvironment:
    def test_are_taken_over(self, ada):
        assert actions.take_over_tokens({"ada": TOKEN}, by=BY) == []
        assert GatewayAccount.objects.get().read_token() == TOKEN

    def test_do_not_undo_what_the_console_said_later(self, ada):
        actions.take_over_tokens({"ada": TOKEN}, by=BY)
        set_token(ada, "1001:from-the-console")
        actions.take_over_tokens({"ada": TOKEN}, by=BY)
        assert GatewayAccount.objects.get().read_token() == "1001:from-the-console"

    def test_win_when_they_are_new(self, ada):
        actions.take_over_tokens({"ada": TOKEN}, by=BY)
        set_token(ada, "1001:from-the-console")
        actions.take_over_tokens({"ada": "1001:newer"}, by=BY)
        assert GatewayAccount.objects.get().read_token() == "1001:newer"

    def test_that_cannot_be_used_are_named_and_do_not_hinder_others(self, ada):
        problems = actions.take_over_tokens({"nobody": TOKEN, "ada": "1001:good"}, by=BY)
        assert len(problems) == 1
        assert problems[0].startswith("FLEET_TELEGRAM_NOBODY_TOKEN: ")
        assert TOKEN not in problems[0]
        assert GatewayAccount.objects.get().read_token() == "1001:good"


def test_accounts_to_serve_can_be_limited_to_some_bots(ada):
    set_token(ada)
    set_token(IdentityFactory(slug="bob"), "1002:b")
    assert [account.key for account in queries.accounts_to_serve(only=["bob"])] == ["telegram:bob"]
    assert queries.accounts_to_serve("web") == []


def test_a_retired_bot_is_not_served(ada):
    set_token(ada)
    Identity.objects.filter(pk=ada.pk).update(state="retired")
    assert queries.accounts_to_serve() == []


def test_a_kill_order_reaches_the_accounts_of_its_scope(ada):
    set_token(ada)
    set_token(IdentityFactory(slug="bob"), "1002:b")
    assert queries.keys_in_scope(scope="fleet", scope_id="") == ["telegram:ada", "telegram:bob"]
    assert queries.keys_in_scope(scope="identity", scope_id="bob") == ["telegram:bob"]
    assert queries.keys_in_scope(scope="conversation", scope_id="1") == []
