"""From what a CLI needs and what its bot may reach to the command that runs it inside its walls."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from execution.ports import Confinement, Finished, NotPrepared, Prompt
from execution.sandbox import pinned, refusals, startfiles, troubles
from execution.sandbox.presence import check_enclosable, is_on
from execution.sandbox.profile import Profile
from execution.shim import network
from execution.states import OutcomeClass
from identities.states import NetworkPolicy

_PROXIED = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_NOT_INHERITED = ("TMPDIR", "NO_PROXY", "no_proxy", *_PROXIED)
_CERTIFICATES = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a provider's CLI needs: files it runs from, directories that are its own, and the API it speaks to. `fresh` ones are
    another directory for each process, as (which, where), `empty` ones begin empty: what the CLI would obey there, its tools could have
    written.

    `before` is a command that stays outside of the walls and becomes the CLI's (execution.sandbox.servers).
    """

    programs: tuple[Path, ...]
    writable: tuple[Path, ...]
    api: str
    nests: bool = False
    before: tuple[str, ...] = ()
    fresh: tuple[tuple[Path, Path], ...] = ()
    empty: tuple[Path, ...] = ()


def is_enclosed(confinement: Confinement) -> bool:
    """Return whether a CLI of this bot runs inside walls of ours."""
    return is_on() and not confinement.waived


@dataclass(frozen=True, slots=True)
class Enclosed:
    """How to start a CLI inside its walls: for a shim. `network` says whom it reaches; empty: whatever this machine reaches."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    network: str = field(default="", repr=False)


def enclose(argv: Sequence[str], environment: Mapping[str, str], *, prompt: Prompt, needs: Needs) -> Enclosed:
    """Return how to start this CLI inside its sandbox, or as it was where there is none.

    Raises NotPrepared where there has to be one and cannot.
    """
    confinement = prompt.confinement
    if not is_enclosed(confinement) or confinement.network == NetworkPolicy.OPEN:
        _check_reaches_directly(needs.api)
    if not is_enclosed(confinement):
        return Enclosed((*needs.before, *argv), dict(environment))
    check_enclosable(confinement)
    own_directories(prompt.home, *pinned.places(prompt.home))
    covered = (*needs.empty, *(path for _, path in needs.fresh))
    walls = profile(
        prompt.workspace,
        writable=(
            prompt.home,
            *pinned.pins(prompt.home, mounted=needs.writable, covered=covered),
            *needs.writable,
        ),
        readable=(*_certificates(environment), *needs.programs),
        nests=needs.nests,
        fresh=needs.fresh,
        empty=needs.empty,
        blank=startfiles.blanks(prompt.home),
    )
    inside = (*needs.before, *walls.argv(), *argv)
    return Enclosed(inside, surroundings(environment, confinement), _way_out(prompt, needs.api))


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory for a CLI's sockets and leavings. Whoever starts the CLI removes it; without anything to start it goes here."""
    path = Path(tempfile.mkdtemp(prefix="fleet-"))  # not below the home: a socket's path may have 107 bytes
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def own_directories(*paths: Path) -> None:
    """Make these directories, outermost first. A link or a file in the place of one is removed: the bot could have made it.

    Whatever Fleet itself writes or binds below a bot's home goes through here, or it would be led out by such a link.
    """
    for path in paths:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


def profile(
    workspace: Path,
    *,
    writable: Iterable[Path] = (),
    readable: Iterable[Path] = (),
    nests: bool = False,
    fresh: Iterable[tuple[Path, Path]] = (),
    empty: Iterable[Path] = (),
    blank: Iterable[tuple[Path, Path]] = (),
    begins: Path | None = None,
) -> Profile:
    """Return the walls around whatever works in this workspace; what is Fleet's own and what is other bots' is not inside."""
    return Profile(
        workspace=workspace,
        writable=tuple(writable),
        readable=(*(Path(path) for path in settings.FLEET_SANDBOX_READABLE), *readable),
        hidden=(settings.ROOT, settings.FLEET_VAR, settings.FLEET_HOMES, settings.FLEET_WORKSPACES),
        nests=nests,
        fresh=tuple(fresh),
        empty=tuple(empty),
        blank=tuple(blank),
        begins=begins,
    )


def surroundings(environment: Mapping[str, str], confinement: Confinement) -> dict[str, str]:
    """Return the environment as it has to be inside: another temporary directory, and our proxy unless the network is open."""
    if confinement.network == NetworkPolicy.OPEN:
        return _without(environment, ("TMPDIR",))
    return _without(environment, _NOT_INHERITED) | dict.fromkeys(_PROXIED, f"http://127.0.0.1:{network.PORT}")


def _certificates(environment: Mapping[str, str]) -> list[Path]:
    return [Path(environment[name]) for name in _CERTIFICATES if environment.get(name)]


def _without(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Leave out what our own environment says under these names; what a provider says itself stays."""
    ours = settings.FLEET_CLI_ENVIRONMENT
    return {name: text for name, text in environment.items() if name not in names or ours.get(name) != text}


def _check_reaches_directly(api: str) -> None:
    """Raise NotPrepared when the way to this API needs a password that a bot on the machine's network would see."""
    if settings.FLEET_OUTGOING.keeps_from(api):
        raise NotPrepared(
            Finished(
                OutcomeClass.GOVERNANCE,
                sentence="Nothing was started. The proxy that HTTPS_PROXY or HTTP_PROXY names asks for a password, which a bot on the "
                "machine's own network would see. An administrator can give the bot the network policy “provider” or “allowlist”: "
                "then it goes through that proxy without seeing it.",
            )
        )


def _way_out(prompt: Prompt, api: str) -> str:
    """Return what the proxy of this bot is told; nothing when it needs none."""
    confinement = prompt.confinement
    if confinement.network == NetworkPolicy.OPEN:
        return ""
    if confinement.network == NetworkPolicy.NONE:
        raise NotPrepared(
            Finished(
                OutcomeClass.GOVERNANCE,
                sentence="This bot may not use the network at all, so it cannot reach a model. "
                "An administrator can allow it its provider.",
            )
        )
    troubles.forget(prompt.session_id)
    told = {"log": str(refusals.file()), "trouble": str(troubles.file(prompt.session_id))}
    reached = {"rules": rules(confinement, api), "proxy": settings.FLEET_OUTGOING.told()}
    return json.dumps({"bot": confinement.bot, **told, **reached})


def rules(confinement: Confinement, api: str) -> list[tuple[str, int | None, bool]]:
    """Return whom this bot reaches: its provider wherever that is, and what an administrator listed."""
    url = urlsplit(api)
    port = url.port or (80 if url.scheme == "http" else 443)
    found: list[tuple[str, int | None, bool]] = [((url.hostname or "").rstrip("."), port, True)]
    listed = confinement.allowed if confinement.network == NetworkPolicy.ALLOWLIST else ()
    for entry in (*listed, *confinement.servers):
        parts = urlsplit(f"//{entry}")
        found.append(((parts.hostname or "").rstrip("."), parts.port, False))
    return found
