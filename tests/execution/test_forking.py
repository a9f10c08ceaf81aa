"""A session branches off another one: it knows what was said there and goes on alone, and the other one as if there were none."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from execution import actions, queries
from execution.engine import workspace
from execution.models import Execution
from execution.providers import registry
from execution.states import EventKind, ExecutionState
from fleet.kernel.exceptions import NotFound
from tests.emulators import agents
from tests.emulators.model import ModelEmulator, Usage
from tests.execution.running import Run
from tests.factories import execution as made

NAME, NUMBER = "My name is Eva.", "My number is seven."
MODELS = {"claude": "claude-haiku-4-5", "codex": "gpt-5.6-luna"}
Ask = Callable[..., Execution]


def notices(row: Execution) -> list[str]:
    return [event.payload["text"] for event in queries.events_after(row.pk) if event.kind == EventKind.NOTICE]


@pytest.mark.realcli
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("provider", MODELS)
class TestBranch:
    """With real CLIs, each turn through a worker's own way."""

    @pytest.fixture
    def queued(self, settings, model_emulator: ModelEmulator, provider: str) -> Ask:
        """Queue a turn of one bot."""
        settings.FLEET_WARM_PROCESSES = 0
        settings.ANTHROPIC_API_KEY, settings.ANTHROPIC_BASE_URL = "sk-ant-canary-not-a-key", model_emulator.url
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk-canary-not-a-key", f"{model_emulator.url}/v1"
        bot = made.BotFactory()

        def queue(text: str, session: str, turns: int = 0, **fields: str) -> Execution:
            asked = {"identity": bot, "provider": provider, "model": MODELS[provider], **fields}
            return made.queued(text, session_id=session, session_turns=turns, **asked)

        return queue

    @pytest.fixture
    def ask(self, run: Run, queued: Ask, model_emulator: ModelEmulator) -> Ask:
        """Run a turn of one bot to its good end."""

        def ask(*said: object, **fields: str) -> Execution:
            row = run(queued(*said, **fields))
            assert (row.state, row.sentence) == (ExecutionState.SUCCEEDED, "")
            return row

        return ask

    @pytest.fixture
    def heard(self, model_emulator: ModelEmulator) -> Callable[[], list[str]]:
        """Which of what people said the model was told in its last request."""
        known = (NAME, NUMBER, "Who am I?", "And my number?", "Go on.")
        return lambda: [text for text in known if text in str(model_emulator.requests[-1].messages)]

    def test_it_knows_what_was_said_and_both_go_on_apart(self, ask: Ask, heard: Callable[[], list[str]]) -> None:
        session, branch = str(uuid.uuid4()), str(uuid.uuid4())
        ask(NAME, session)
        first = ask("Who am I?", branch, fork_of=session)
        assert heard() == [NAME, "Who am I?"]
        ask(NUMBER, session, 1)
        assert heard() == [NAME, NUMBER]
        second = ask("And my number?", branch, 1, fork_of=session)
        assert heard() == [NAME, "Who am I?", "And my number?"]
        assert [row.session_id for row in (first, second)] == [branch, branch]
        assert [row.output for row in (first, second)] == [Usage().output] * 2
        assert notices(first) + notices(second) == []

    def test_what_was_written_of_the_session_it_left_stays_as_it_was(self, ask: Ask, settings) -> None:
        session = str(uuid.uuid4())
        ask(NAME, session)
        (left,) = settings.FLEET_HOMES.glob("*/.c*/*/**/*.jsonl")
        before = left.read_bytes()
        ask("Who am I?", str(uuid.uuid4()), fork_of=session)
        assert left.read_bytes() == before

    def test_a_branch_may_be_branched_off(self, ask: Ask, heard: Callable[[], list[str]]) -> None:
        session, branch, twig = (str(uuid.uuid4()) for _ in range(3))
        ask(NAME, session)
        ask(NUMBER, branch, fork_of=session)
        ask("Go on.", twig, fork_of=branch)
        assert heard() == [NAME, NUMBER, "Go on."]

    def test_processes_that_stay_serve_each_their_own(self, ask: Ask, heard: Callable[[], list[str]], settings) -> None:
        settings.FLEET_WARM_PROCESSES = 2
        session, branch = str(uuid.uuid4()), str(uuid.uuid4())
        begun = [ask(NAME, session).pid, ask("Who am I?", branch, fork_of=session).pid]
        warm = [ask(NUMBER, session, 1).pid]
        assert heard() == [NAME, NUMBER]
        warm.append(ask("And my number?", branch, 1).pid)
        assert heard() == [NAME, "Who am I?", "And my number?"]
        assert warm == begun

    def test_it_stays_a_branch_when_it_was_given_back_before_its_gate(
        self, run: Run, ask: Ask, queued: Ask, heard: Callable[[], list[str]], provider: str
    ) -> None:
        session, branch = str(uuid.uuid4()), str(uuid.uuid4())
        ask(NAME, session)
        claimed = made.claimed(queued("Who am I?", branch, fork_of=session))
        waits = registry.get(provider).open(workspace.prompt_for(claimed))
        waits.prepare()
        assert waits.kill()
        waits.close()
        assert actions.requeue(execution=claimed, by=made.BY, why="its worker was stopped")
        row = run(Execution.objects.get(pk=claimed.pk))
        assert (row.state, heard(), notices(row)) == (ExecutionState.SUCCEEDED, [NAME, "Who am I?"], [])

    def test_it_says_so_when_the_session_is_not_there_any_more(
        self, ask: Ask, heard: Callable[[], list[str]], settings
    ) -> None:
        session = str(uuid.uuid4())
        row = ask(NAME, session)
        shutil.rmtree(settings.FLEET_HOMES / row.identity.slug)
        row = ask("Who am I?", str(uuid.uuid4()), fork_of=session)
        assert heard() == ["Who am I?"]
        assert ["afresh" in notice for notice in notices(row)] == [True]

    def test_it_goes_on_when_the_session_it_left_is_gone_or_says_that_it_cannot(
        self, ask: Ask, heard: Callable[[], list[str]], settings, provider: str
    ) -> None:
        """Claude has copied what was said, and Codex reads it where it was written."""
        session, branch = str(uuid.uuid4()), str(uuid.uuid4())
        ask(NAME, session)
        (left,) = settings.FLEET_HOMES.glob("*/.c*/*/**/*.jsonl")
        ask("Who am I?", branch, fork_of=session)
        left.unlink()
        row = ask("And my number?", branch, 1)
        if provider == "claude":
            assert (heard(), notices(row)) == ([NAME, "Who am I?", "And my number?"], [])
        else:
            assert heard() == ["And my number?"]
            assert ["afresh" in notice for notice in notices(row)] == [True]

    def test_it_says_so_when_another_provider_has_the_session(
        self, ask: Ask, heard: Callable[[], list[str]], provider: str
    ) -> None:
        """As after a failover."""
        session, (other,) = str(uuid.uuid4()), set(MODELS) - {provider}
        ask(NAME, session)
        row = ask("Who am I?", str(uuid.uuid4()), fork_of=session, provider=other, model=MODELS[other])
        assert heard() == ["Who am I?"]
        assert ["afresh" in notice for notice in notices(row)] == [True]


@pytest.mark.django_db(transaction=True)
class TestProviderThatCannot:
    """The person is told, once, and in the first turn alone."""

    @pytest.fixture
    def agent(self, settings, model_emulator: ModelEmulator) -> Iterator[dict[str, str]]:
        """An agent of the Agent Client Protocol."""
        an_agent = {"agent": "execution.providers.acp.provider.AcpProvider:agent"}
        settings.FLEET_ACP_AGENTS = {"agent": agents.claude_agent(model_emulator.url)}
        settings.FLEET_ACP_SECRETS = {"AGENT_KEY": "sk-ant-canary-not-a-key"}
        settings.FLEET_PROVIDERS = {**settings.FLEET_PROVIDERS, **an_agent}
        registry.kept.cache_clear()
        yield {"provider": "agent", "model": "claude-haiku-4-5"}
        registry.kept.cache_clear()

    def check(self, run: Run, **fields: str) -> None:
        bot, session, branch = made.BotFactory(), str(uuid.uuid4()), str(uuid.uuid4())
        run(made.queued(NAME, identity=bot, session_id=session, **fields))
        fields |= {"identity": bot, "session_id": branch, "fork_of": session}
        first = run(made.queued("Who am I?", **fields))
        second = run(made.queued("And now?", session_turns=1, **fields))
        assert (first.state, second.state) == (ExecutionState.SUCCEEDED, ExecutionState.SUCCEEDED)
        assert (notices(first), notices(second)) == ([workspace.CANNOT_BRANCH], [])

    def test_the_mock(self, run: Run) -> None:
        self.check(run)

    @pytest.mark.realcli
    def test_an_agent(self, run: Run, agent: dict[str, str], model_emulator: ModelEmulator) -> None:
        self.check(run, **agent)
        assert NAME not in str(model_emulator.requests[-1].messages)


@pytest.mark.django_db
class TestWhoseSession:
    """A bot that branched off a session of another one would know what people had said there."""

    def refused(self, session: str, **fields: object) -> str:
        before = Execution.objects.count()
        with pytest.raises(NotFound) as refusal, transaction.atomic():
            made.queued("Who am I?", fork_of=session, **fields)
        assert Execution.objects.count() == before
        return refusal.value.sentence

    def test_one_of_another_bot_is_refused_in_the_words_of_one_that_never_was(self) -> None:
        ada, eva = made.BotFactory(name="Ada"), made.BotFactory(name="Eva")
        session = made.queued(NAME, identity=eva).session_id
        nowhere = self.refused(str(uuid.uuid4()), identity=ada)
        assert self.refused(session, identity=ada) == nowhere
        assert "no such session" in nowhere and "Ada has had none" in nowhere and "Begin a new one" in nowhere

    def test_a_row_in_which_a_cli_called_itself_by_another_bots_session_opens_nothing(self) -> None:
        ada, eva = made.BotFactory(), made.BotFactory()
        session = made.queued(NAME, identity=eva).session_id
        lied = made.queued("Hello", identity=ada)
        Execution.objects.filter(pk=lied.pk).update(session_id=session)
        self.refused(session, identity=ada)

    def test_a_path_is_no_session(self) -> None:
        bot = made.BotFactory()
        made.queued(NAME, identity=bot)
        self.refused("../eva/.claude/projects/x", identity=bot)

    def test_asking_whose_it_is_costs_a_branch_one_statement_and_others_none(self) -> None:
        bot = made.BotFactory()
        session = made.queued(NAME, identity=bot).session_id
        asked = []
        for fork in ("", session):
            with CaptureQueriesContext(connection) as seen:
                made.queued("Hello", identity=bot, fork_of=fork)
            asked.append(len(seen))
        assert asked[1] == asked[0] + 1
