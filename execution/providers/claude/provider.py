"""What the rest of Fleet sees of Claude. Light to import: the SDK itself is loaded in workers only."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from django.conf import settings

from budgets.states import Billing
from execution.ports import Capabilities, Claim, ProcessFacts, Prompt, Recovered, Run, UserText
from execution.providers import logins
from execution.providers.claude import launch, transcripts
from execution.sandbox import proxy
from execution.shim.handle import Nursery
from execution.toolcalls import Judge
from fleet.kernel import loops

_MISSING = (
    "To talk to Claude, set ANTHROPIC_API_KEY in .env, or CLAUDE_CODE_OAUTH_TOKEN for a subscription, and restart."
)
_OUTDATED = (
    "FLEET_CLAUDE_LOGIN_DIR is not used any more: every bot could read the login there. Run `claude setup-token`, put the token "
    "that it prints into CLAUDE_CODE_OAUTH_TOKEN in .env, and restart."
)


class ClaudeProvider:
    """The Claude Code CLI with an API key, or with the token of a subscription."""

    capabilities = Capabilities(
        name="claude",
        resumes_sessions=True,
        forks_sessions=True,
        reports_cost=True,
        adopts=True,
        delegates=True,
        counts_late=True,  # an API behind a gateway may tell no usage
    )

    def __init__(self) -> None:
        self._nursery = Nursery(proxy)

    def check(self) -> str:
        """Return what is missing for it to be used; nothing when it can be."""
        if not _credential():
            return _OUTDATED if settings.FLEET_CLAUDE_LOGIN_DIR else _MISSING
        path = launch.cli_path()
        if not path.is_file():
            return f"There is no Claude CLI at {path}. Run `make setup`, or correct FLEET_CLAUDE_CLI, and restart."
        return ""

    def billing(self) -> Billing:
        """Return how the login pays: a key per token, a subscription's token by subscription."""
        return Billing.API if settings.ANTHROPIC_API_KEY else Billing.SUBSCRIPTION

    def login(self) -> str:
        """Return a name for the key or token in use."""
        return logins.name_of(_credential())

    def version(self) -> str:
        """Return what the CLI says of itself; empty when it says nothing."""
        return ".".join(str(number) for number in launch.cli_version(launch.cli_path()))

    def warm_up(self) -> None:
        """Load the SDK (about a second), look at the CLI's version, start the loop and a first shim."""
        if self.check():
            return
        import_module("execution.providers.claude.session")
        launch.cli_version(launch.cli_path())
        loops.background("providers")
        self._nursery.prepare()

    def open(self, prompt: Prompt) -> Run:
        """Return a run for this prompt; starts nothing."""
        from execution.providers.claude.session import ClaudeRun

        return ClaudeRun.open(prompt, nursery=self._nursery)

    def adopt(
        self, prompt: Prompt, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim
    ) -> Run:
        """Go on with the turn that another worker left in this process. Raises NotAdopted."""
        from execution.providers.claude.session import ClaudeRun

        return ClaudeRun.adopt(prompt, process, texts, judge=judge, claim=claim, nursery=self._nursery)

    def recover(self, home: Path, session_id: str, uuid: str) -> Recovered | None:
        """Return what the CLI's transcript tells of the turn with this last message."""
        return transcripts.recover(launch.configuration_directory(home), session_id, uuid)


def _credential() -> str:
    """Return the key, or the token where there is none: both never reach the CLI, which would have to choose."""
    return settings.ANTHROPIC_API_KEY or settings.CLAUDE_CODE_OAUTH_TOKEN
