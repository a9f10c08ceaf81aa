"""Settings of a bot that make no sense are refused wherever they are written: by actions, files, Django admin and the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from execution.ports import Confinement
from execution.sandbox.enclosing import rules
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from identities import actions
from identities.models import Identity
from identities.permissions import Role
from identities.validators import BOUNDS, validate_host
from tests import triggers
from tests.factories.identities import IdentityFactory, PersonFactory

BY = Actor.system("test")
NONSENSE = [
    ("max_turns", 0, "Max turns: choose 1 to 1000 model turns for one message"),
    ("max_turns", 1001, "Max turns: choose 1 to 1000"),
    ("max_minutes", 0, "Max minutes: choose 1 to 1440 minutes"),
    ("max_minutes", 1441, "Max minutes: choose 1 to 1440 minutes"),
    ("max_tool_calls", 10_001, "or 0 for a bot that uses no tools"),
    (
        "max_megabytes",
        1,
        "Max megabytes: choose 512 to 1048576 MB for one message, or 0 for no limit; a CLI alone takes some 280 MB.",
    ),
    ("max_megabytes", 511, "choose 512 to 1048576 MB"),
    ("max_megabytes", 1_048_577, "choose 512 to 1048576 MB"),
    ("concurrency", 0, "Concurrency: choose 1 to 100 conversations at once"),
    ("concurrency", 101, "Concurrency: choose 1 to 100"),
    ("prewarmed", 11, "Prewarmed: choose 1 to 10 processes"),
    ("prewarmed", 1000, "or 0 for none; each takes some 280 MB."),
]
SENSE = [
    *(("max_turns", value) for value in (1, 1000)),
    *(("max_minutes", value) for value in (1, 1440)),
    *(("max_tool_calls", value) for value in (0, 1, 10_000)),
    *(("max_megabytes", value) for value in (0, 512, 1_048_576)),
    *(("concurrency", value) for value in (1, 100)),
    *(("prewarmed", value) for value in (0, 1, 10)),
]
HOSTS = [
    "api.example.com",
    "*.example.com",
    "10.0.0.5:8443",
    "[fd00::1]:443",
    "[fd00::1]",
    "localhost:80",
    "wiki",
    "x-1.example:65535",
]
NO_HOSTS = [
    ("https://x.example", "leave out the scheme"),
    ("x.example/path", "leave out the path"),
    ("10.0.0.0/8", "a range is not taken"),
    ("[fd00::]/16", "a range is not taken"),
    ("x.example:port", "a port is a number from 1 to 65535"),
    ("x.example:0", "a port is a number from 1 to 65535"),
    ("x.example:", "a port is a number from 1 to 65535"),
    ("x.example:65536", "a port is a number from 1 to 65535"),
    ("fd00::1", "stands in brackets"),
    ("[fd00::1", "stands in brackets"),
    ("[not::an::address]", "IPv6 address"),
    ("Example.com", "lower case"),
    ("user@x.example", "without a name to sign in with"),
    ("*", "write a name"),
    ("*.", "write a name"),
    ("*.com", "half of the internet"),
    ("x.*.example", "write a name"),
    ("a b", "write a name"),
    ("-x.example", "write a name"),
    ("x..example", "write a name"),
    ("x.example.", "write a name"),
    ("x\n.example", "is no host"),
    (f"{'x' * 64}.example", "write a name"),
    ("", "is no host"),
    ("256.0.0.1", "four numbers from 0 to 255"),
    ("127.1", "four numbers from 0 to 255"),
    ("2130706433", "four numbers from 0 to 255"),
    ("0x7f000001", "four numbers from 0 to 255"),
    ("*.0.0.1", "no pattern"),
]


class TestByActions:
    pytestmark = pytest.mark.django_db

    @pytest.mark.parametrize(("field", "value", "sentence"), NONSENSE)
    def test_a_number_out_of_bounds_is_refused_with_its_bounds(self, field: str, value: int, sentence: str) -> None:
        bot = IdentityFactory()
        with pytest.raises(Invalid) as changing:
            actions.update_identity(identity=bot, by=BY, **{field: value})
        with pytest.raises(Invalid) as making:
            actions.create_identity(slug="new", name="New", by=BY, **{field: value})
        assert sentence in changing.value.why and sentence in making.value.why
        assert Identity.objects.count() == 1

    @pytest.mark.parametrize(("field", "value"), SENSE)
    def test_the_bounds_themselves_are_taken(self, field: str, value: int) -> None:
        bot = actions.update_identity(identity=IdentityFactory(), by=BY, **{field: value})
        assert getattr(Identity.objects.get(pk=bot.pk), field) == value

    @pytest.mark.parametrize("host", HOSTS)
    def test_hosts_are_taken(self, host: str) -> None:
        bot = actions.update_identity(identity=IdentityFactory(), by=BY, network="allowlist", allowed_hosts=[host])
        assert Identity.objects.get(pk=bot.pk).allowed_hosts == [host]

    @pytest.mark.parametrize(("host", "sentence"), NO_HOSTS)
    def test_what_is_no_host_is_refused_with_what_to_write(self, host: str, sentence: str) -> None:
        bot = IdentityFactory()
        with pytest.raises(Invalid) as refused:
            actions.update_identity(identity=bot, by=BY, allowed_hosts=["api.example.com", host])
        assert sentence in refused.value.why or (host == "" and "Item 2" in refused.value.why)
        assert Identity.objects.get(pk=bot.pk).allowed_hosts == []

    def test_an_allowlist_that_lists_nobody_is_refused(self) -> None:
        with pytest.raises(Invalid, match="cannot be stored") as refused:
            actions.update_identity(identity=IdentityFactory(), by=BY, network="allowlist")
        assert "Name at least one of the allowed hosts" in refused.value.why

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"provider_chain": ["claude", "mock", "claude"]}, "claude is there twice. Name it once."),
            ({"provider_chain": []}, "cannot be blank"),
            ({"allowed_hosts": ["a.example", "a.example"]}, "a.example is there twice"),
            ({"allowed_hosts": [f"x{number}.example" for number in range(201)]}, "There are 201 hosts and may be 200"),
        ],
    )
    def test_lists_that_nobody_can_mean_are_refused(self, changes: dict[str, Any], sentence: str) -> None:
        with pytest.raises(Invalid) as refused:
            actions.update_identity(identity=IdentityFactory(), by=BY, **changes)
        assert sentence in refused.value.why


@given(st.from_regex(r"\[?[a-z0-9*.:/@%_\[\]-]{1,30}\]?", fullmatch=True))
def test_whatever_is_taken_as_a_host_is_a_rule_with_a_host_and_a_port_that_can_be(text: str) -> None:
    try:
        validate_host(text)
    except ValidationError:
        return
    (_, (host, port, anywhere)) = rules(Confinement(network="allowlist", allowed=(text,)), "https://api.example.com")
    assert host and not anywhere
    assert port is None or 1 <= port <= 65535
    assert (
        text in (host, f"{host}:{port}", f"[{host}]", f"[{host}]:{port}") or ":" in host or text.endswith(f":0{port}")
    )


@pytest.mark.django_db
class TestByAdmin:
    @pytest.fixture
    def root(self, client: Client) -> Client:
        client.force_login(PersonFactory(username="root", roles=[Role.ADMIN]))
        return client

    def form(self, bot: Identity, **fields: object) -> dict[str, object]:
        kept = ("slug", "name", "model", "timezone", "network", *BOUNDS)
        return {**{name: getattr(bot, name) for name in kept}, "provider_chain": "claude", **fields}

    @pytest.mark.parametrize(("field", "value", "sentence"), NONSENSE)
    def test_a_number_out_of_bounds_is_refused_at_its_field(
        self, root: Client, field: str, value: int, sentence: str
    ) -> None:
        bot = IdentityFactory()
        page = root.post(reverse("admin:identities_identity_change", args=[bot.pk]), self.form(bot, **{field: value}))
        assert page.status_code == 200
        assert any(sentence in error for error in page.context["adminform"].form.errors[field])
        added = root.post(reverse("admin:identities_identity_add"), self.form(bot, slug="new", **{field: value}))
        assert added.status_code == 200 and Identity.objects.count() == 1

    @pytest.mark.parametrize(("host", "sentence"), [case for case in NO_HOSTS if case[0].strip()])
    def test_what_is_no_host_is_refused_at_its_field(self, root: Client, host: str, sentence: str) -> None:
        bot = IdentityFactory()
        page = root.post(
            reverse("admin:identities_identity_change", args=[bot.pk]),
            self.form(bot, network="allowlist", allowed_hosts=host),
        )
        assert sentence in str(page.context["adminform"].form.errors["allowed_hosts"])

    def test_an_allowlist_that_lists_nobody_is_refused_at_the_policy(self, root: Client) -> None:
        bot = IdentityFactory()
        page = root.post(
            reverse("admin:identities_identity_change", args=[bot.pk]), self.form(bot, network="allowlist")
        )
        assert "Name at least one of the allowed hosts" in str(page.context["adminform"].form.errors["network"])

    def test_what_makes_sense_is_saved(self, root: Client) -> None:
        bot = IdentityFactory()
        answer = root.post(
            reverse("admin:identities_identity_change", args=[bot.pk]),
            self.form(bot, network="allowlist", allowed_hosts="api.example.com", max_megabytes=0, prewarmed=2),
        )
        assert answer.status_code == 302
        bot.refresh_from_db()
        assert (bot.network, bot.allowed_hosts, bot.max_megabytes, bot.prewarmed) == (
            "allowlist",
            ["api.example.com"],
            0,
            2,
        )


@pytest.mark.django_db
class TestByFile:
    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["apply", "dry run"])
    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("limits: {megabytes: 1}", "choose 512 to 1048576 MB"),
            ("limits: {prewarmed: 1000}", "choose 1 to 10 processes"),
            ("limits: {minutes: 0}", "choose 1 to 1440 minutes"),
            ("network: allowlist", "Name at least one of the allowed hosts"),
            ("network: allowlist, allowed_hosts: [10.0.0.0/8]", "a range is not taken"),
        ],
    )
    def test_a_file_with_nonsense_changes_nothing_and_a_dry_run_says_so_too(
        self, tmp_path: Path, text: str, sentence: str, dry_run: list[str]
    ) -> None:
        file = tmp_path / "fleet.yaml"
        file.write_text(f"version: 1\nbots: [{{slug: ada, name: Ada, title: New, {text}}}]")
        IdentityFactory(slug="ada", title="Old")
        with pytest.raises(CommandError, match="cannot be stored"):
            call_command("fleet", "apply", str(file), *dry_run)
        assert Identity.objects.get().title == "Old"


@pytest.mark.django_db
class TestByTheDatabase:
    @pytest.mark.parametrize(("field", "value", "sentence"), NONSENSE)
    def test_no_statement_writes_a_number_out_of_bounds(self, field: str, value: int, sentence: str) -> None:
        bot = IdentityFactory()
        with (
            pytest.raises(IntegrityError, match=f"identity_sensible_{field}|identity_concurrency"),
            transaction.atomic(),
        ):
            Identity.objects.filter(pk=bot.pk).update(**{field: value})
        with (
            pytest.raises(IntegrityError, match=f"identity_sensible_{field}|identity_concurrency"),
            transaction.atomic(),
        ):
            IdentityFactory(**{field: value})

    def test_no_statement_leaves_an_allowlist_without_hosts(self) -> None:
        with pytest.raises(IntegrityError, match="identity_allowlist_lists_somebody"), transaction.atomic():
            IdentityFactory(network="allowlist")

    def test_the_bounds_of_the_trigger_are_those_of_the_forms(self) -> None:
        with connection.cursor() as cursor:
            for bound in BOUNDS.values():
                for value in (-1, 0, 1, bound.least - 1, bound.least, bound.most, bound.most + 1):
                    cursor.execute(f"SELECT {bound.condition(str(value))}")
                    assert cursor.fetchone()[0] is bound.allows(value), (bound.name, value)


@pytest.mark.django_db
class TestWhatWasThereBefore:
    """Rows from before a rule: they go on working, and are corrected when that setting is changed."""

    @pytest.fixture
    def old(self) -> Identity:
        with triggers.switched_off():
            return IdentityFactory(max_megabytes=1, prewarmed=1000, allowed_hosts=["10.0.0.0/8"])

    def test_it_can_be_changed_otherwise_and_moved_through_its_states(self, old: Identity) -> None:
        actions.update_identity(identity=old, by=BY, title="Chief", concurrency=2)
        actions.pause(identity=Identity.objects.get(), by=BY)
        row = Identity.objects.get()
        row.department = "Office"
        row.save()
        row.refresh_from_db()
        assert (row.title, row.state, row.max_megabytes, row.prewarmed) == ("Chief", "paused", 1, 1000)

    def test_what_is_exported_of_it_is_no_change_when_it_is_applied(
        self, old: Identity, tmp_path: Path, capsys: Any
    ) -> None:
        call_command("fleet", "export")
        file = tmp_path / "fleet.yaml"
        file.write_text(capsys.readouterr().out)
        call_command("fleet", "apply", str(file))
        assert capsys.readouterr().out == "0 changes.\n"

    def test_the_setting_itself_can_only_be_corrected(self, old: Identity) -> None:
        with pytest.raises(Invalid):
            actions.update_identity(identity=old, by=BY, max_megabytes=2)
        actions.update_identity(identity=old, by=BY, max_megabytes=1024, allowed_hosts=["10.0.0.5"])
        assert Identity.objects.get().max_megabytes == 1024
