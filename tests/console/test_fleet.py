"""The fleet as it was observed: a word for each state, what a bot does, and why it is idle when it is."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client

from conversations.models import Conversation, Turn
from execution import actions as execution_actions
from execution.models import Execution, Worker
from execution.ports import ProcessFacts
from execution.states import ExecutionState, OutcomeClass
from fleet.console.presenters import BotRow, Spend
from fleet.console.screens.bots import bot_rows
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from governance import actions as governance_actions
from governance.states import KillMode, KillScope
from identities.actions.texts import publish_text
from identities.models import Identity, Person
from identities.states import TextKind
from tests.console.page import text_of
from tests.conversations import scenes

BY = Actor.system("test")
pytestmark = pytest.mark.usefixtures("ada")


@pytest.fixture
def worker(db: None) -> Worker:
    """A worker that beats."""
    facts = ProcessFacts(pid=1, started_at=1.0, host="here", boot_id="boot")
    return execution_actions.register_worker(process=facts, slots=4, by=BY)


@pytest.fixture
def turn(people: dict[str, Person]) -> Turn:
    """The operator has asked Ada something."""
    people["operator"].chat_accounts.create(platform="telegram", external_id="501")
    return scenes.turn_of(scenes.say("How was the quarter?"))


def row(slug: str = "ada") -> BotRow:
    """The bot's line in the list."""
    return next(row for row in bot_rows()[0] if row.bot.slug == slug)


def test_a_bot_with_a_worker_and_no_work_is_ready(worker: Worker) -> None:
    assert (row().status.word, row().why_idle) == ("Ready", "No message is waiting")
    assert row().last_activity_at is None


def test_without_a_worker_nobody_is_called_ready() -> None:
    assert row().status.word == "Not served"
    assert row().why_idle == "A message would wait: no worker is alive"


def test_with_every_worker_drained_nobody_is_called_ready(worker: Worker, operator: Client) -> None:
    execution_actions.set_draining(worker_id=worker.pk, draining=True, by=BY)
    told = "A message would wait: every worker is drained until one takes work again (Runner)"
    assert (row().status.word, row().why_idle) == ("Not served", told)
    assert told in text_of(operator.get("/fleet/ada/"))
    facts = ProcessFacts(pid=2, started_at=1.0, host="there", boot_id="boot")
    execution_actions.register_worker(process=facts, slots=4, by=BY)
    assert row().status.word == "Ready"


def test_a_turn_that_waits_while_every_worker_is_drained_says_so(turn: Turn, worker: Worker) -> None:
    execution_actions.set_draining(worker_id=worker.pk, draining=True, by=BY)
    assert row().why_idle == "1 turn: the first waits: every worker is drained until one takes work again (Runner)"


def test_a_waiting_turn_says_what_it_waits_for(turn: Turn, worker: Worker) -> None:
    assert row().status.word == "Queued"
    assert row().why_idle == "1 turn: the first waits for a free worker"


def test_a_turn_that_waits_for_a_login_says_so_here_and_on_the_runner(
    people: dict[str, Person], worker: Worker, operator: Client
) -> None:
    ada, eva = Identity.objects.get(slug="ada"), people["operator"]
    talk = Conversation.objects.create(account="web:ada", chat_id="1", identity=ada, person=eva)
    hour = dt.timedelta(hours=1)
    turn = Turn.objects.create(conversation=talk, identity=ada, person=eva, route={}, parked_until=clock.now() + hour)
    assert row().why_idle == "1 turn: the first waits until one of its logins may be used again"
    assert "1 message waits until a login may be used again: see Logins" in text_of(operator.get("/runner/"))
    Turn.objects.filter(pk=turn.pk).update(parked_until=clock.now() - hour)
    assert row().why_idle == "1 turn: the first waits for a free worker"


def test_a_working_bot_says_what_it_works_on(turn: Turn) -> None:
    scenes.running(turn)
    assert row().status.word == "Running"
    assert row().activity == "Answering in “How was the quarter?”"


def test_a_bot_whose_worker_fell_silent_is_unknown_not_running(turn: Turn) -> None:
    execution = scenes.running(turn)
    Execution.objects.filter(pk=execution.pk).update(lease_until=clock.now() - dt.timedelta(minutes=1))
    assert row().status.word == "Unknown"
    assert "no sign of life" in row().why_idle


def test_a_bot_that_runs_under_a_stop_is_shown_running_and_wrong(turn: Turn) -> None:
    scenes.running(turn)
    governance_actions.stop(scope=KillScope.FLEET, mode=KillMode.STOP, reason="Wrong prices", by=BY)
    assert row().status.word == "Still running"
    assert "although a stop is in force" in row().activity


def test_a_stopped_bot_says_who_stopped_it_and_why(worker: Worker) -> None:
    governance_actions.stop(scope=KillScope.IDENTITY, scope_id="ada", mode=KillMode.STOP, reason="Wrong prices", by=BY)
    scenes.bot("bruno")
    assert (row().status.word, row().why_idle) == ("Stopped", "test: Wrong prices")
    assert row("bruno").status.word == "Ready"


def test_a_failed_last_turn_is_told(turn: Turn, worker: Worker) -> None:
    scenes.end(scenes.running(turn), ExecutionState.FAILED, OutcomeClass.AUTH, sentence="The login was refused.")
    assert (row().status.word, row().why_idle) == ("Last turn failed", "The login was refused.")


@pytest.mark.parametrize(("state", "word"), [("draft", "Draft"), ("paused", "Paused")])
def test_a_bot_off_duty_says_so(state: str, word: str) -> None:
    Identity.objects.create(slug="bruno", name="Bruno", state=state)
    assert row("bruno").status.word == word


def test_the_list_can_be_searched_and_is_paged_by_key(operator: Client) -> None:
    Identity.objects.bulk_create(Identity(slug=f"bot-{n:02}", name=f"Bot {n:02}", state="active") for n in range(60))
    first = operator.get("/fleet/")
    assert "Bot 48" in text_of(first)
    assert "Bot 50" not in text_of(first)
    assert "Bot 59" in text_of(operator.get(first.context["pager"]["next_url"]))
    assert "Chief of staff" in text_of(operator.get("/fleet/?q=STAFF"))
    assert "No bot matches" in text_of(operator.get("/fleet/?q=zzz"))
    assert operator.get("/fleet/?after=x").status_code == 400


def test_a_live_region_gets_the_rows_only(operator: Client) -> None:
    fragment = operator.get("/fleet/", headers={"HX-Request": "true"}).content.decode()
    assert fragment.lstrip().startswith('<section class="section" id="bots"')
    assert "<html" not in fragment


def test_the_page_of_a_bot_shows_who_it_is_and_what_it_may(operator: Client, turn: Turn) -> None:
    ada = Identity.objects.get(slug="ada")
    publish_text(identity=ada, kind=TextKind.SOUL, name="soul", content="You are **Ada**.", by=BY)
    ada.grants.create(pattern="Read", decision="allow")
    response = operator.get("/fleet/ada/")
    page = text_of(response)
    assert "You are <strong>Ada</strong>." in response.content.decode()
    assert "Read allow" in page
    assert "How was the quarter?" in page
    assert operator.get("/fleet/nobody/").status_code == 404


@pytest.mark.parametrize(
    ("spent", "limit", "percent", "tone"),
    [
        (0, 100, 0, "running"),
        (79, 100, 79, "running"),
        (80, 100, 80, "waiting"),
        (120, 100, 100, "failed"),
        (5, None, None, "running"),
        (None, 100, None, "running"),
    ],
)
def test_spending_has_a_share_only_where_both_numbers_are_known(
    spent: int | None, limit: int | None, percent: int | None, tone: str
) -> None:
    spend = Spend(spent, limit)
    assert (spend.percent, spend.tone) == (percent, tone)
