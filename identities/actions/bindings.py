"""What a bot's CLI is bound to besides its texts: the walls around it, and the MCP servers it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F

from fleet.kernel import journal, live, masking
from fleet.kernel.actors import Actor
from fleet.kernel.exceptions import Invalid
from identities import events
from identities.models import Identity, McpServer
from identities.states import Transport


@transaction.atomic
def waive_sandbox(*, identity: Identity, because: str, by: Actor) -> None:
    """Let this bot's CLI run without a sandbox, for a reason that everybody can read. Invalid without one."""
    because = " ".join(because.split())
    if not because:
        raise Invalid("A bot without a sandbox needs a reason.", next_step="Say why it has to be so.")
    if Identity.objects.filter(pk=identity.pk).exclude(sandbox_waiver=because).update(sandbox_waiver=because):
        _tell(events.SANDBOX_WAIVED, identity, by, because=because)


@transaction.atomic
def restore_sandbox(*, identity: Identity, by: Actor) -> None:
    """End a waiver: from its next turn on this bot's CLI runs in its sandbox or not at all."""
    if Identity.objects.filter(pk=identity.pk).exclude(sandbox_waiver="").update(sandbox_waiver=""):
        _tell(events.SANDBOX_RESTORED, identity, by)


def _tell(event: str, identity: Identity, by: Actor, **details: object) -> None:
    journal.record(event, by=by, subject=("identity", identity.pk), slug=identity.slug, **details)
    live.hint("fleet", identity=identity.pk)


@transaction.atomic
def connect_server(
    *,
    identity: Identity,
    name: str,
    transport: str,
    by: Actor,
    command: Sequence[str] = (),
    url: str = "",
    settings: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    secret_names: Sequence[str] | None = None,
) -> McpServer:
    """Give a bot an MCP server, or change the one of this name. `secrets` replaces the stored values; None leaves them.

    `secret_names` says which secrets it needs without giving them: values that are stored under these names stay.
    """
    Identity.objects.select_for_update(no_key=True).get(pk=identity.pk)
    server = McpServer.objects.filter(identity=identity, name=name).first() or McpServer(identity=identity, name=name)
    server.identity = identity
    server.transport, server.command, server.url = transport, list(command), url
    server.settings = dict(settings or {})
    if secrets is not None:
        server.keep_secrets(dict(secrets))
    elif secret_names is not None:
        server.secret_names = sorted(secret_names)
    _check(server)
    server.save()
    _rise(identity)
    journal.record(
        events.SERVER_CONNECTED,
        by=by,
        subject=("identity", identity.pk),
        slug=identity.slug,
        name=name,
        transport=str(transport),
        target=url or " ".join(command),
        secret_names=server.secret_names,
        new_secrets=secrets is not None,
    )
    return server


@transaction.atomic
def remove_server(*, server: McpServer, by: Actor) -> None:
    """Take an MCP server, with its secrets, away from its bot."""
    identity, name = server.identity, server.name
    server.delete()
    _rise(identity)
    journal.record(events.SERVER_REMOVED, by=by, subject=("identity", identity.pk), slug=identity.slug, name=name)


def _rise(identity: Identity) -> None:
    Identity.objects.filter(pk=identity.pk).update(mcp_version=F("mcp_version") + 1)
    live.hint("fleet", identity=identity.pk)


def _check(server: McpServer) -> None:
    try:
        server.clean_fields(exclude=["secrets_sealed"])
        server.validate_constraints()
    except ValidationError as error:
        raise _invalid(server, " ".join(error.messages)) from error
    if server.transport != Transport.STDIO and "@" in server.url.partition("//")[2].partition("/")[0]:
        raise _invalid(server, "Its address contains a name to sign in with.")
    if server.transport == Transport.STDIO and "/" in server.command[0] and not server.command[0].startswith("/"):
        raise _invalid(
            server, "Its program is named by a relative path, and it begins in an empty directory of its own."
        )
    shown = [server.url, *server.command, *map(str, server.settings.values())]
    if any(masking.mask(text) != text for text in shown):
        raise _invalid(server, "Its command, address or settings contain a secret of this installation.")


def _invalid(server: McpServer, why: str) -> Invalid:
    return Invalid(
        f"The MCP server {server.name[:40]!r} cannot be stored like this.",
        why=why,
        next_step="A server is a program (stdio) or an address (http, sse); its secrets are entered apart.",
    )
