"""What the rest of Fleet sees of an ACP agent. Light to import: the protocol's types are loaded in workers that have an agent."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from django.conf import settings

from budgets.states import Billing
from execution.ports import Capabilities, Claim, ProcessFacts, Prompt, Run, UserText
from execution.providers import logins
from execution.providers.acp import launch
from execution.sandbox import proxy
from execution.shim.handle import Nursery
from execution.toolcalls import Judge
from fleet.kernel import loops


class AcpProvider:
    """One agent of those that settings declare."""

    def __init__(self, name: str) -> None:
        self._agent = settings.FLEET_ACP_AGENTS[name]
        self._nursery = Nursery(proxy)
        self.capabilities = Capabilities(
            name=name,
            model=self._agent.model,
            models=self._agent.models,
            resumes_sessions=True,  # where it cannot, the person is told
            adopts=True,
            keeps_its_process=False,
            tells_context_full=False,  # the protocol has no word for it
            tells_refusals=False,  # nor for the reason of one
            tells_reset=False,  # nor for this
            counts_late=True,
            counts_whole=True,
        )

    def check(self) -> str:
        """Return what is missing for it to be used; nothing when it can be."""
        return launch.missing(self._agent)

    def billing(self) -> Billing:
        """Return how it pays, as its declaration says."""
        return Billing.SUBSCRIPTION if self._agent.subscription else Billing.API

    def login(self) -> str:
        """Return a name for the agent's keys."""
        keys = [settings.FLEET_ACP_SECRETS[name] for name in self._agent.keys]
        return logins.name_of("\n".join([self._agent.name, *keys]))

    def version(self) -> str:
        """Only the agent itself knows, once it runs."""
        return ""

    def warm_up(self) -> None:
        """Load the protocol's types, start the loop and a first shim."""
        if self.check():
            return
        import_module("execution.providers.acp.session")
        loops.background("providers")
        self._nursery.prepare()

    def open(self, prompt: Prompt) -> Run:
        """Return a run for this prompt; starts nothing."""
        from execution.providers.acp.session import AcpRun

        return AcpRun(self._agent, prompt, nursery=self._nursery)

    def adopt(
        self, prompt: Prompt, process: ProcessFacts, texts: tuple[UserText, ...], *, judge: Judge, claim: Claim
    ) -> Run:
        """Go on with the turn that another worker left in this process. Raises NotAdopted."""
        from execution.providers.acp.session import AcpRun

        return AcpRun(self._agent, prompt, nursery=self._nursery).go_on(process, texts, judge=judge, claim=claim)

    def recover(self, home: Path, session_id: str, uuid: str) -> None:
        """The protocol has no transcript."""
