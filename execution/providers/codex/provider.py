"""What the rest of Fleet sees of Codex. Light to import: the SDK's types are loaded in workers only."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from django.conf import settings

from budgets.states import Billing
from execution.ports import Capabilities, Claim, ProcessFacts, Prompt, Recovered, Run, UserText
from execution.providers import logins
from execution.providers.codex import launch
from execution.providers.codex.threads import Threads
from execution.sandbox import proxy
from execution.shim.handle import Nursery
from execution.toolcalls import Judge
from fleet.kernel import loops


class CodexProvider:
    """The Codex CLI with an API key."""

    def __init__(self) -> None:
        self._nursery = Nursery(proxy)
        self.capabilities = Capabilities(
            name="codex",
            model=settings.FLEET_CODEX_MODEL,
            models=r"(gpt-|codex-|o\d)",
            resumes_sessions=True,
            forks_sessions=True,
            adopts=True,
            counts_late=True,
            counts_whole=True,
            steers=True,  # `turn/steer` is answered with the turn that took the text, or with an error
        )

    def check(self) -> str:
        """Return what is missing for it to be used; nothing when it can be."""
        if not settings.OPENAI_API_KEY:
            return "To talk to Codex, set OPENAI_API_KEY in .env and restart."
        path = launch.cli_path()
        if not path.is_file():
            return f"There is no Codex CLI at {path}. Run `make setup`, or correct FLEET_CODEX_CLI, and restart."
        return ""

    def billing(self) -> Billing:
        """Return how it pays: a key pays per token."""
        return Billing.API

    def login(self) -> str:
        """Return a name for the key or login in use."""
        return logins.name_of(settings.OPENAI_API_KEY)

    def version(self) -> str:
        """Return the version of the wheel; of another CLI only a run can tell."""
        return "" if settings.FLEET_CODEX_CLI else version("openai-codex")

    def warm_up(self) -> None:
        """Load the protocol's types (about a second), start the loop and a first shim."""
        if self.check():
            return
        import_module("execution.providers.codex.session")
        loops.background("providers")
        self._nursery.prepare()

    def open(self, prompt: Prompt) -> Run:
        """Return a run for this prompt; starts nothing."""
        from execution.providers.codex.session import CodexRun

        return CodexRun(prompt, nursery=self._nursery)

    def adopt(
        self, prompt: Prompt, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim
    ) -> Run:
        """Go on with the turn that another worker left in this process. Raises NotAdopted."""
        from execution.providers.codex.session import CodexRun

        return CodexRun(prompt, nursery=self._nursery).go_on(process, texts, judge=judge, claim=claim)

    def recover(self, home: Path, session_id: str, uuid: str) -> Recovered | None:
        """Return what Codex's transcript tells of the turn with this last message."""
        from execution.providers.codex import transcripts

        return transcripts.recover(launch.configuration_directory(home), session_id, uuid)

    def has_heard(self, home: Path, session_id: str, uuid: str) -> bool | None:
        """Return whether the session's thread has this message, by its transcript; None without one."""
        return Threads(launch.configuration_directory(home)).has_message(session_id, uuid)
