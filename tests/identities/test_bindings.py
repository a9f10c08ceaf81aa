"""The walls around a bot and its MCP servers: every change is journaled, and no secret is readable anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from fleet.kernel import masking, secrets
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from fleet.kernel.models import JournalEntry
from identities import actions, events, queries
from identities.models import Identity, McpServer
from identities.permissions import Role
from identities.states import NetworkPolicy, Transport
from tests.factories.identities import IdentityFactory, PersonFactory

BY = Actor.system("test")
pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> Identity:
    return IdentityFactory(slug="ada")


def connect(bot: Identity, **fields: Any) -> McpServer:
    given = {"name": "crm", "transport": Transport.STDIO, "command": ["crm-mcp"], **fields}
    return actions.connect_server(identity=bot, by=BY, **given)


def version_of(bot: Identity) -> int:
    return Identity.objects.get(pk=bot.pk).mcp_version


class TestWalls:
    def test_a_new_bot_reaches_its_provider_and_has_its_sandbox(self, ada: Identity) -> None:
        assert (ada.network, ada.allowed_hosts, ada.sandbox_waiver) == (NetworkPolicy.PROVIDER, [], "")

    def test_a_waiver_is_journaled_with_its_reason_and_who_gave_it(self, ada: Identity) -> None:
        actions.waive_sandbox(identity=ada, because="no user namespaces on this host", by=BY)
        actions.waive_sandbox(identity=ada, because="no user namespaces on this host", by=BY)

        (entry,) = JournalEntry.objects.filter(event=events.SANDBOX_WAIVED)
        assert (entry.actor_name, entry.details["because"]) == ("test", "no user namespaces on this host")
        assert queries.unsandboxed() == [ada]

    def test_a_waiver_needs_a_reason(self, ada: Identity) -> None:
        with pytest.raises(Invalid, match="needs a reason"):
            actions.waive_sandbox(identity=ada, because="  ", by=BY)

    def test_it_is_restored_once(self, ada: Identity) -> None:
        actions.waive_sandbox(identity=ada, because="x", by=BY)
        actions.restore_sandbox(identity=ada, by=BY)
        actions.restore_sandbox(identity=ada, by=BY)
        assert JournalEntry.objects.filter(event=events.SANDBOX_RESTORED).count() == 1
        assert queries.unsandboxed() == []

    @pytest.mark.parametrize(
        "host", ["api.example.com", "*.example.com", "10.0.0.5:8443", "[fd00::1]:443", "localhost:80"]
    )
    def test_hosts_are_taken(self, ada: Identity, host: str) -> None:
        actions.update_identity(identity=ada, allowed_hosts=[host], by=BY)

    @pytest.mark.parametrize(
        "host", ["https://x.example", "*", "*.", "a b", "x/y", "x:port", "Example.com", "user@x", ""]
    )
    def test_what_is_no_host_is_not(self, ada: Identity, host: str) -> None:
        with pytest.raises(Invalid):
            actions.update_identity(identity=ada, allowed_hosts=[host], by=BY)

    def test_the_database_knows_the_policies(self, ada: Identity) -> None:
        with pytest.raises(IntegrityError, match="identity_has_known_network"), transaction.atomic():
            Identity.objects.filter(pk=ada.pk).update(network="everything")


class TestServers:
    def test_its_secrets_are_sealed_and_told_to_nobody(self, ada: Identity) -> None:
        server = connect(ada, secrets={"CRM_TOKEN": "canary-4711"})

        assert b"canary" not in bytes(server.secrets_sealed or b"")
        assert "canary" not in str(McpServer.objects.values().get()) + str(list(JournalEntry.objects.values()))
        (connection,) = queries.connections(Identity.objects.get(pk=ada.pk))
        assert "canary" not in repr(connection)
        assert connection.secrets() == {"CRM_TOKEN": "canary-4711"}
        assert masking.mask("with canary-4711") == f"with {masking.MASK}"

    def test_a_stolen_ciphertext_does_not_open_for_another_bot(self, ada: Identity) -> None:
        connect(ada, secrets={"CRM_TOKEN": "canary"})
        boris = IdentityFactory(slug="boris")
        connect(boris)
        stolen = McpServer.objects.get(identity=ada).secrets_sealed
        McpServer.objects.filter(identity=boris).update(secrets_sealed=stolen)
        (connection,) = queries.connections(Identity.objects.get(pk=boris.pk))
        with pytest.raises(secrets.SecretUnreadable):
            connection.secrets()

    def test_a_bot_without_servers_costs_no_query(self, ada: Identity, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert queries.connections(ada) == ()

    def test_every_change_raises_the_bots_version(self, ada: Identity) -> None:
        server = connect(ada)
        connect(ada, command=["crm-mcp", "--verbose"])
        assert version_of(ada) == 2
        actions.remove_server(server=server, by=BY)
        assert version_of(ada) == 3
        assert queries.connections(Identity.objects.get(pk=ada.pk)) == ()

    def test_a_change_without_secrets_leaves_those_that_are_stored(self, ada: Identity) -> None:
        connect(ada, secrets={"CRM_TOKEN": "canary"})
        connect(ada, command=["crm-mcp", "-v"])
        (connection,) = queries.connections(Identity.objects.get(pk=ada.pk))
        assert connection.secrets() == {"CRM_TOKEN": "canary"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"name": "CRM tool"},
            {"command": []},
            {"url": "https://crm.example.com"},
            {"transport": Transport.HTTP, "command": [], "url": "not an address"},
            {"transport": Transport.HTTP, "command": [], "url": "https://ada@crm.example.com"},
            {"transport": Transport.HTTP, "url": "https://crm.example.com"},
            {"transport": "telepathy"},
        ],
    )
    def test_what_is_neither_program_nor_address_is_refused(self, ada: Identity, fields: dict[str, Any]) -> None:
        with pytest.raises(Invalid, match="cannot be stored"):
            connect(ada, **fields)

    @pytest.mark.parametrize("program", ["./crm-mcp", "tools/crm-mcp"])
    def test_a_program_by_a_relative_path_is_refused_since_a_bot_could_have_written_it(
        self, ada: Identity, program: str
    ) -> None:
        with pytest.raises(Invalid, match="cannot be stored") as refused:
            connect(ada, command=[program])
        assert "relative path" in refused.value.sentence
        connect(ada, command=["/opt/crm-mcp", "data/by-argument"])

    def test_a_known_secret_does_not_become_an_argument(self, ada: Identity) -> None:
        masking.register("canary-in-an-argument")
        with pytest.raises(Invalid, match="contain a secret"):
            connect(ada, command=["crm-mcp", "--token", "canary-in-an-argument"])


class TestTheFile:
    TEXT = """version: 1
bots:
- slug: ada
  name: Ada
  network: allowlist
  allowed_hosts: [api.example.com]
  mcp_servers:
    crm:
      command: [crm-mcp, --verbose]
      settings: {CRM_REGION: alps}
      secrets: [CRM_TOKEN]
    wiki:
      url: https://wiki.example.com/mcp
"""

    def apply(self, text: str) -> list[Any]:
        return actions.apply_fleet(declared=actions.read_declaration(text), by=BY)

    def test_it_names_secrets_and_holds_none(self) -> None:
        self.apply(self.TEXT)
        ada = Identity.objects.get(slug="ada")
        assert (ada.network, ada.allowed_hosts) == ("allowlist", ["api.example.com"])
        connect(ada, command=["crm-mcp", "--verbose"], settings={"CRM_REGION": "alps"}, secrets={"CRM_TOKEN": "canary"})

        exported = actions.write_declaration(queries.declared_fleet())
        assert "CRM_TOKEN" in exported and "canary" not in exported
        assert self.apply(exported) == [] == self.apply(self.TEXT)
        crm, wiki = queries.connections(Identity.objects.get(slug="ada"))
        assert crm.secrets() == {"CRM_TOKEN": "canary"}
        assert (wiki.transport, wiki.url) == ("http", "https://wiki.example.com/mcp")

    def test_what_it_does_not_mention_stays(self) -> None:
        self.apply(self.TEXT)
        assert self.apply("version: 1\nbots:\n- {slug: ada, name: Ada}\n") == []

    def test_a_server_that_is_gone_from_it_goes(self) -> None:
        self.apply(self.TEXT)
        self.apply(
            "version: 1\nbots:\n- {slug: ada, name: Ada, mcp_servers: {wiki: {url: 'https://wiki.example.com/mcp'}}}\n"
        )
        assert list(McpServer.objects.values_list("name", flat=True)) == ["wiki"]

    @pytest.mark.parametrize(
        "servers", ["[crm]", "{crm: {command: crm}}", "{crm: {secrets: {A: b}}}", "{crm: {token: x}}"]
    )
    def test_what_it_cannot_mean_is_refused(self, servers: str) -> None:
        with pytest.raises(Invalid):
            actions.read_declaration(f"version: 1\nbots:\n- {{slug: ada, name: Ada, mcp_servers: {servers}}}\n")


class TestAdmin:
    @pytest.fixture
    def root(self, client: Client) -> Client:
        client.force_login(PersonFactory(username="root", roles=[Role.ADMIN]))
        return client

    def test_a_server_is_connected_and_its_secret_never_shown(self, root: Client, ada: Identity) -> None:
        form = {
            "identity": ada.pk,
            "name": "crm",
            "transport": "stdio",
            "command": "crm-mcp '--as' \"a b\"",
            "settings": "{}",
        }
        added = root.post(reverse("admin:identities_mcpserver_add"), {**form, "secrets": "CRM_TOKEN=canary=1"})
        assert added.status_code == 302, added.content.decode()
        server = McpServer.objects.get()
        assert server.command == ["crm-mcp", "--as", "a b"] and server.secret_names == ["CRM_TOKEN"]
        page = root.get(reverse("admin:identities_mcpserver_change", args=[server.pk])).content.decode()
        assert "CRM_TOKEN" in page and "canary" not in page
        root.post(reverse("admin:identities_mcpserver_change", args=[server.pk]), {**form, "secrets": ""})
        (connection,) = queries.connections(Identity.objects.get(pk=ada.pk))
        assert connection.secrets() == {"CRM_TOKEN": "canary=1"}
        assert {entry.actor_name for entry in JournalEntry.objects.filter(event=events.SERVER_CONNECTED)} == {"root"}
        root.post(reverse("admin:identities_mcpserver_delete", args=[server.pk]), {"post": "yes"})
        assert version_of(ada) == 3

    def test_a_line_that_is_no_secret_is_said(self, root: Client, ada: Identity) -> None:
        form = {
            "identity": ada.pk,
            "name": "crm",
            "transport": "stdio",
            "command": "crm",
            "settings": "{}",
            "secrets": "token",
        }
        assert "NAME=value" in root.post(reverse("admin:identities_mcpserver_add"), form).content.decode()

    def test_a_waiver_goes_through_its_action(self, root: Client, ada: Identity) -> None:
        kept = (
            "slug",
            "name",
            "model",
            "max_turns",
            "max_minutes",
            "max_tool_calls",
            "max_megabytes",
            "concurrency",
            "timezone",
            "network",
            "prewarmed",
        )
        form = {name: getattr(ada, name) for name in kept} | {"provider_chain": "claude"}
        root.post(reverse("admin:identities_identity_change", args=[ada.pk]), {**form, "sandbox_waiver": "old kernel"})
        assert JournalEntry.objects.get(event=events.SANDBOX_WAIVED).actor_name == "root"
        root.post(reverse("admin:identities_identity_change", args=[ada.pk]), {**form, "sandbox_waiver": ""})
        assert JournalEntry.objects.filter(event=events.SANDBOX_RESTORED).exists()


def test_the_command_waives_shows_and_restores(ada: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("sandbox", "waive", "ada", "--because", "old kernel")
    assert "ada may run without one, because: old kernel" in capsys.readouterr().out
    call_command("sandbox", "restore", "ada")
    assert "ada" not in capsys.readouterr().out
