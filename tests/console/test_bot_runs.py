"""How a bot runs, on its page: who answers for it and until when a login is left alone, its MCP servers, walls and limits."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from execution.models import Breaker
from execution.providers import registry
from execution.states import BreakerState, Cause
from fleet.console import wording
from fleet.console.presenters import ChainRow, Runs
from fleet.console.screens.bots import bot_page
from fleet.kernel import clock
from fleet.kernel.actors import Actor
from identities import actions
from identities.models import Identity, McpServer
from tests.console.conftest import SignedIn
from tests.console.page import text_of

BY = Actor.system("test")
CANARY = "canary-4711-of-crm"


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    """Both vendors have a key."""
    settings.ANTHROPIC_API_KEY, settings.OPENAI_API_KEY = "sk-ant-not-a-key", "sk-not-a-key"


def change(bot: Identity, **changes: object) -> Identity:
    return actions.update_identity(identity=bot, by=BY, **changes)


def runs() -> Runs:
    return bot_page("ada").runs


def chain() -> list[tuple[str, str]]:
    return [(row.provider, row.status.word) for row in runs().chain]


def link(provider: str) -> ChainRow:
    return next(row for row in runs().chain if row.provider == provider)


def leave_alone(provider: str, *, minutes: int = 30, **fields: object) -> Breaker:
    """A login in trouble until then."""
    now = clock.now()
    given = {"state": BreakerState.OPEN, "cause": Cause.USAGE_LIMIT, "opened_at": now, **fields}
    until = now + dt.timedelta(minutes=minutes)
    return Breaker.objects.create(provider=provider, login=registry.get(provider).login(), until=until, **given)


def moment(breaker: Breaker, zone: str) -> str:
    """When it may be used again, as somebody there reads it."""
    there = zoneinfo.ZoneInfo(zone)
    return wording.soon(breaker.until.astimezone(there), clock.now().astimezone(there))


class TestTheChain:
    def test_the_first_answers_next_and_the_others_are_in_reserve(self, ada: Identity) -> None:
        change(ada, provider_chain=["claude", "codex", "mock"])
        assert chain() == [("claude", "Answers next"), ("codex", "In reserve"), ("mock", "In reserve")]
        assert runs().answers == ("claude", "claude-haiku-4-5") and not runs().note

    def test_a_login_that_is_left_alone_says_until_when_and_why_and_the_next_answers(
        self, ada: Identity, operator: Client
    ) -> None:
        change(ada, provider_chain=["claude", "codex"])
        breaker = leave_alone("claude")
        assert chain() == [("claude", "Left alone"), ("codex", "Answers next")]
        assert (link("claude").until, link("claude").sentence) == (breaker.until, "The login's usage limit")
        page = text_of(operator.get("/fleet/ada/"))
        assert f"The login's usage limit, until {moment(breaker, 'UTC')}" in page
        assert "Thinks with codex" in page

    def test_its_moment_stands_on_the_reader_s_clock(self, ada: Identity, operator: Client, people: Any) -> None:
        people["operator"].timezone = "Asia/Kolkata"
        people["operator"].save()
        breaker = leave_alone("claude")
        assert f"until {moment(breaker, 'Asia/Kolkata')}" in text_of(operator.get("/fleet/ada/"))

    def test_a_moment_on_another_day_names_the_day(self, ada: Identity, operator: Client) -> None:
        breaker = leave_alone("claude", minutes=3 * 24 * 60)
        assert f"until {breaker.until.day} {breaker.until:%B %H:%M}" in text_of(operator.get("/fleet/ada/"))

    def test_a_login_that_may_be_tried_again_answers_next(self, ada: Identity) -> None:
        leave_alone("claude", minutes=-1)
        assert chain() == [("claude", "Answers next")]

    def test_a_login_that_is_being_tried_says_so(self, ada: Identity) -> None:
        leave_alone("claude", state=BreakerState.HALF_OPEN)
        assert chain() == [("claude", "Being tried")]

    def test_when_all_are_left_alone_messages_wait(self, ada: Identity, operator: Client) -> None:
        leave_alone("claude")
        assert runs().answers is None
        assert "No login of this chain may be used now, so messages wait." in text_of(operator.get("/fleet/ada/"))

    def test_what_a_provider_lacks_is_said_and_that_the_mock_stands_in(
        self, ada: Identity, operator: Client, settings: Any
    ) -> None:
        settings.ANTHROPIC_API_KEY = ""
        assert chain() == [("claude", "Not set up")]
        page = text_of(operator.get("/fleet/ada/"))
        assert "To talk to Claude, set ANTHROPIC_API_KEY in .env" in page
        assert "Nobody of this chain can answer, so the built-in mock does." in page

    def test_who_may_reach_nobody_has_no_provider_that_answers(self, ada: Identity, operator: Client) -> None:
        change(ada, provider_chain=["claude", "mock"], network="none")
        assert chain() == [("claude", "Out of reach"), ("mock", "In reserve")]
        page = text_of(operator.get("/fleet/ada/"))
        assert "An administrator can allow it its provider." in page and "Its turns fail" in page

    def test_without_walls_it_is_in_the_machine_s_network_all_the_same(self, ada: Identity) -> None:
        change(ada, provider_chain=["claude"], network="none", sandbox_waiver="An old kernel")
        assert chain() == [("claude", "Answers next")]
        assert not runs().note

    def test_a_subscription_is_not_called_a_key(self, ada: Identity, operator: Client, settings: Any) -> None:
        change(ada, provider_chain=["claude", "codex"])
        assert f"key {registry.get('claude').login()}" in text_of(operator.get("/fleet/ada/"))
        settings.ANTHROPIC_API_KEY, settings.CLAUDE_CODE_OAUTH_TOKEN = "", "sk-ant-oat01-canary"
        page, login = text_of(operator.get("/fleet/ada/")), registry.get("claude").login()
        assert f"subscription {login}" in page and f"key {login}" not in page
        assert f"key {registry.get('codex').login()}" in page

    def test_a_provider_that_was_taken_away_is_named(self, ada: Identity) -> None:
        Identity.objects.filter(pk=ada.pk).update(provider_chain=["acme", "claude"])
        assert chain() == [("acme", "Unknown"), ("claude", "Answers next")]

    def test_it_follows_by_itself(self, ada: Identity, operator: Client) -> None:
        part = operator.get("/fleet/ada/", headers={"HX-Request": "true", "HX-Target": "bot-chain"}).content.decode()
        assert part.lstrip().startswith('<section class="section" id="bot-chain"')
        now = operator.get("/fleet/ada/", headers={"HX-Request": "true", "HX-Target": "bot-now"}).content.decode()
        assert now.lstrip().startswith('<dl class="figures" id="bot-now"')


class TestServers:
    def connect(self, bot: Identity, **fields: Any) -> McpServer:
        given = {"name": "crm", "transport": "stdio", "command": ["crm-mcp", "--token", "typed-by-mistake"], **fields}
        return actions.connect_server(identity=bot, by=BY, **given)

    def test_none_is_said_honestly(self, ada: Identity, operator: Client) -> None:
        page = text_of(operator.get("/fleet/ada/"))
        assert "This bot has only the tools of its provider." in page

    def test_a_program_shows_its_name_and_the_names_of_what_it_is_given_and_no_value(
        self, ada: Identity, operator: Client
    ) -> None:
        self.connect(ada, settings={"CRM_REGION": "eu-central"}, secrets={"CRM_TOKEN": CANARY})
        actions.set_grants(identity=ada, grants={"mcp__crm__*": "allow", "Read": "allow"}, by=BY)
        page = operator.get("/fleet/ada/").content.decode()
        for shown in ("crm-mcp", "CRM_REGION", "CRM_TOKEN"):
            assert shown in page
        for hidden in (CANARY, "eu-central", "typed-by-mistake"):
            assert hidden not in page
        (row,) = runs().servers
        assert (row.status.word, row.sentence, row.secrets) == ("Usable", "mcp__crm__*", (("CRM_TOKEN", True),))

    def test_an_address_shows_neither_its_query_nor_a_name_to_sign_in_with(
        self, ada: Identity, operator: Client
    ) -> None:
        server = self.connect(ada, transport="http", command=(), url=f"https://mcp.example.com/v1?key={CANARY}")
        McpServer.objects.filter(pk=server.pk).update(url=f"https://eva:{CANARY}@mcp.example.com/v1?key={CANARY}")
        page = operator.get("/fleet/ada/").content.decode()
        assert "https://mcp.example.com/v1" in page and CANARY not in page

    @pytest.mark.parametrize(
        ("grants", "word"),
        [
            ({}, "Not usable"),
            ({"Read": "allow", "mcp__crmx__*": "allow"}, "Not usable"),
            ({"mcp__crm__*": "deny"}, "Not usable"),
            ({"mcp__crm__find": "ask"}, "Usable"),
            ({"mcp__*": "allow"}, "Usable"),
            ({"*": "ask"}, "Usable"),
        ],
    )
    def test_it_is_usable_when_a_tool_of_it_is_granted(self, ada: Identity, grants: dict[str, str], word: str) -> None:
        self.connect(ada)
        actions.set_grants(identity=ada, grants=grants, by=BY)
        (row,) = runs().servers
        assert row.status.word == word

    def test_a_secret_that_nobody_entered_is_missed(self, ada: Identity) -> None:
        self.connect(ada, secrets={"CRM_TOKEN": CANARY})
        self.connect(ada, secret_names=["CRM_TOKEN", "CRM_USER"])
        (row,) = runs().servers
        assert (row.status.word, row.secrets) == ("Secret missing", (("CRM_TOKEN", True), ("CRM_USER", False)))
        assert "until a value is entered for CRM_USER" in row.sentence

    def test_secrets_that_the_keys_of_this_installation_do_not_open_are_missed_too(self, ada: Identity) -> None:
        self.connect(ada, secrets={"CRM_TOKEN": CANARY})
        McpServer.objects.update(secrets_sealed=b"sealed elsewhere")
        (row,) = runs().servers
        assert row.status.word == "Secret missing"


class TestWallsAndLimits:
    def test_they_are_named(self, ada: Identity, operator: Client) -> None:
        change(
            ada, network="allowlist", allowed_hosts=["api.example.com"], prewarmed=2, max_tool_calls=0, max_megabytes=0
        )
        page = text_of(operator.get("/fleet/ada/"))
        for told in (
            "Sandbox Required",
            "Reaches Its provider, its MCP servers and the allowed hosts",
            "Allowed hosts api.example.com",
            "Model turns 30",
            "Time 15 minutes",
            "Tool calls none",
            "Memory no limit",
            "At once 4 conversations",
            "Between turns its process stays for 10 minutes",
            "Ready ahead 2 processes",
            "Time zone UTC",
        ):
            assert told in page, told

    def test_a_waiver_and_a_switch_for_all_are_told(self, ada: Identity, operator: Client, settings: Any) -> None:
        actions.waive_sandbox(identity=ada, because="old kernel", by=BY)
        assert "Waived: old kernel" in text_of(operator.get("/fleet/ada/"))
        settings.FLEET_SANDBOX = "off"
        assert "Off for every bot (FLEET_SANDBOX)" in text_of(operator.get("/fleet/ada/"))

    @pytest.mark.parametrize("network", ["none", "provider", "allowlist"])
    def test_a_network_policy_that_does_not_hold_is_not_promised(
        self, ada: Identity, settings: Any, network: str
    ) -> None:
        told = f"Everybody that this machine reaches: without a sandbox its policy ({network}) does not hold"
        change(ada, network=network, allowed_hosts=["api.example.com"] if network == "allowlist" else [])
        assert ("Reaches", told) not in runs().walls
        settings.FLEET_SANDBOX = "off"
        assert ("Reaches", told) in runs().walls and not runs().hosts
        settings.FLEET_SANDBOX = "require"
        actions.waive_sandbox(identity=ada, because="old kernel", by=BY)
        assert ("Reaches", told) in runs().walls

    def test_an_open_network_reads_the_same_with_and_without_walls(self, ada: Identity, settings: Any) -> None:
        change(ada, network="open")
        behind = runs().walls[1]
        settings.FLEET_SANDBOX = "off"
        assert runs().walls[1] == behind == ("Reaches", "Everybody that this machine reaches")

    def test_who_may_reach_nobody_is_not_said_to_be_answered_by_the_mock(self, ada: Identity) -> None:
        change(ada, network="none")
        assert ("Reaches", "Nobody, so turns fail where a CLI has to reach its provider") in runs().walls

    def test_processes_that_do_not_stay_are_told_with_the_reason(self, ada: Identity, settings: Any) -> None:
        settings.FLEET_WARM_PROCESSES = 0
        assert ("Between turns", "its process ends (FLEET_WARM_PROCESSES is 0)") in runs().processes
        change(ada, warm=False)
        assert ("Between turns", "its process ends") in runs().processes


def test_who_may_change_it_is_led_there_and_nobody_else(ada: Identity, signed_in: SignedIn) -> None:
    server = actions.connect_server(identity=ada, name="crm", transport="stdio", command=["crm"], by=BY)
    admin = signed_in("admin")
    page = admin.get("/fleet/ada/").content.decode()
    for address in (
        f"/admin/identities/identity/{ada.pk}/change/",
        f"/admin/identities/mcpserver/{server.pk}/change/",
        f"/admin/identities/mcpserver/add/?identity={ada.pk}",
    ):
        assert f'href="{address}"' in page
        assert admin.get(address).status_code == 200
    assert "/admin/identities/" not in signed_in("operator").get("/fleet/ada/").content.decode()


def test_it_costs_the_same_however_much_there_is(ada: Identity, operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            operator.get("/fleet/ada/")
        return len(captured)

    few = queries()
    change(ada, provider_chain=["claude", "codex", "mock"])
    leave_alone("claude")
    for number in range(12):
        name = f"crm-{number}"
        actions.connect_server(
            identity=ada, name=name, transport="stdio", command=["crm"], secrets={"TOKEN": CANARY}, by=BY
        )
        Breaker.objects.create(
            provider="claude", login=f"old-{number}", state=BreakerState.OPEN, opened_at=clock.now(), until=clock.now()
        )
    actions.set_grants(identity=ada, grants={f"mcp__crm-{number}__*": "allow" for number in range(12)}, by=BY)
    assert queries() == few
