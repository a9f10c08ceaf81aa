"""One Claude CLI: its handshake done, then given one turn after the other until it is let go."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Protocol

import structlog
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, HookContext, HookMatcher, Message
from claude_agent_sdk.types import SyncHookJSONOutput

from execution.ports import Claim, Finished, NotPrepared, ProcessFacts, Prompt
from execution.providers import cli
from execution.providers.claude import launch, mirror
from execution.providers.claude.counting import Counting
from execution.providers.claude.transport import ShimTransport, TakenTransport
from execution.providers.cli import LOOP, Broken, CliProcess
from execution.sandbox import check_enclosable
from execution.shim.handle import Nursery
from execution.shim.pipes import Ended, Unintelligible
from execution.shim.taking import Inheritance
from execution.states import OutcomeClass
from execution.toolcalls import ToolCall, Verdict
from fleet.kernel import loops
from identities.ports import tool_name

log = structlog.get_logger(__name__)


class Turn(Protocol):
    """What the process asks of the turn it is working on. All but `judge` are called on the loop."""

    @property
    def said(self) -> str:
        """Return everything the model has said so far."""
        ...

    @property
    def claim(self) -> Claim | None:
        """Return whose turn it is; None when nobody else may go on with it."""
        ...

    def memo(self) -> bytes:
        """Return what another worker would have to know to go on with it."""
        ...

    def message(self) -> dict[str, Any]:
        """Return what was asked, as the CLI takes it."""
        ...

    def judge(self, call: ToolCall) -> Verdict:
        """Decide a tool call; asked in a thread."""
        ...

    def take(self, message: Message) -> bool:
        """Hear a message of the CLI; True when it was the turn's last."""
        ...

    def broke(self, finished: Finished) -> None:
        """The CLI ended in the middle of the turn."""
        ...

    def silent(self) -> None:
        """Nothing more is coming."""
        ...


class ClaudeProcess(CliProcess):
    """`start`, `give` and `let_go` belong to whoever owns the turn; `kill` and `interrupt` to any thread."""

    name = "Claude"

    def __init__(self, prompt: Prompt, *, nursery: Nursery, transport: ShimTransport | None = None) -> None:
        self._transport = transport or ShimTransport()
        super().__init__(self._transport, nursery=nursery, session_id=prompt.session_id)
        self._prompt = prompt
        self._client: ClaudeSDKClient | None = None
        self._turns: asyncio.Queue[Turn | None] = asyncio.Queue()
        self._turn: Turn | None = None
        self.counting = Counting()
        self.resumed = False

    # --- Its start -------------------------------------------------------------------------------------------------------

    def start(self) -> ProcessFacts:
        """Start the CLI and wait until it is ready for a prompt; it calls no API before it gets one. Raises NotPrepared."""
        check_enclosable(self._prompt.confinement)  # before anything of it runs, were it only to say its version
        _check_version(launch.cli_path())
        mirror.put_back(self._prompt)
        plan = launch.prepare(self._prompt)
        self.resumed = plan.resumed
        facts = self._spawn(plan)
        self._wait_ready()
        return facts

    @classmethod
    def taken(cls, prompt: Prompt, inherited: Inheritance, *, nursery: Nursery) -> ClaudeProcess:
        """Return the process that another worker left; `go_on` with its turn."""
        return cls(prompt, nursery=nursery, transport=TakenTransport(inherited.said))

    def go_on(self, turn: Turn, inherited: Inheritance) -> None:
        """Go on with the turn that another worker left: what the CLI asked may concern it at once. Raises NotPrepared."""
        self._turn = turn
        self.give(turn)
        self._take_over(inherited)

    @property
    def error_type(self) -> str:
        """Return what the API called the error that ended the last turn; empty when none did."""
        return self._transport.error_type

    # --- Its turns -------------------------------------------------------------------------------------------------------

    def give(self, turn: Turn) -> None:
        """Let it work on this turn."""
        self._hand_over(turn)

    def _hand_over(self, turn: Turn | None) -> None:
        loops.background(LOOP).call_soon_threadsafe(self._turns.put_nowait, turn)

    def interrupt(self) -> None:
        """Ask the CLI to end its turn; its result follows."""
        if self._client is not None:
            self._on_loop(self._interrupt())

    async def _interrupt(self) -> None:
        try:
            if self._client is not None:
                await self._client.interrupt()
        except Exception as error:
            log.debug("claude.not_interrupted", error=str(error))

    def let_go(self, *, politely: bool) -> None:
        """Let it leave by itself when it has nothing left to do (`politely`), kill it otherwise, and keep nothing of it."""
        self._hand_over(None)
        super().let_go(politely=politely)

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, then work on one turn after the other until there is none, or one did not end as it should."""
        self._client = client = ClaudeSDKClient(self._options(), transport=self._transport)
        try:
            await client.connect()
            if self._scratch is not None:
                launch.forget(self._scratch)
            self._ready.set_result(None)
            while (turn := await self._turns.get()) is not None:
                self._turn = turn
                await self._ask_cli(client, turn)
                await self._report(client, turn)
        except Exception as error:
            what = str(error) if isinstance(error, Unintelligible) else self._when()
            self._end(await self._explain(what))
        finally:
            await self._leave(client)

    async def _ask_cli(self, client: ClaudeSDKClient, turn: Turn) -> None:
        """Hand over the prompt, unless another worker did; the shim hears first that there will be something to take over."""
        if self._transport.was_asked:
            return
        if turn.claim is not None:
            run, epoch = str(turn.claim.execution), turn.claim.epoch
            await self._transport.open_gate(run=run, epoch=epoch, memo=turn.memo())
        await client.query(_stream(turn.message()))

    async def _report(self, client: ClaudeSDKClient, turn: Turn) -> None:
        async for message in client.receive_messages():
            if turn.take(message):
                return
        raise Ended

    async def _leave(self, client: ClaudeSDKClient) -> None:
        turn = self._turn
        if turn is not None:
            turn.silent()
        if self._shim is not None and self._shim.is_left:
            return
        with contextlib.suppress(BrokenPipeError):
            if turn is not None and turn.claim is not None:
                await self._transport.settle(str(turn.claim.execution))
            await self._transport.end_input()
        if not self._killed:
            await self._hear_out(client)
        await client.disconnect()

    async def _hear_out(self, client: ClaudeSDKClient) -> None:
        """Read on until the CLI has left: one whose last words nobody reads waits two seconds for a reader."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(cli.EXIT_SECONDS):
                async for _ in client.receive_messages():
                    pass

    def _end(self, finished: Finished) -> None:
        if not self._ready.done():
            self._ready.set_exception(Broken(finished))
        elif self._turn is not None:
            self._turn.broke(finished)

    def _options(self) -> ClaudeAgentOptions:
        """Return what the SDK itself has to know; the CLI's arguments are ours."""
        configuration = launch.configuration_directory(self._prompt.home)
        return ClaudeAgentOptions(
            hooks={"PreToolUse": [HookMatcher(hooks=[self._ask])]},
            verbatim_prompts=True,
            session_store=mirror.store_of_sdk(self._prompt.session_id),
            env={"CLAUDE_CONFIG_DIR": str(configuration)},
        )

    async def _ask(self, call: Any, call_id: str | None, _context: HookContext) -> SyncHookJSONOutput:
        """PreToolUse: every call, whatever the CLI itself would have allowed."""
        tool_call = ToolCall(call_id or "", tool_name(call["tool_name"]), call["tool_input"])
        verdict = await asyncio.to_thread(self._turn.judge, tool_call) if self._turn else Verdict(False, "No turn.")
        return {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "allow" if verdict.allow else "deny",
                "permissionDecisionReason": verdict.reason,
            }
        }

    def _said(self) -> str:
        return self._turn.said if self._turn is not None else ""


def _check_version(path: Path) -> None:
    """Raise NotPrepared for a CLI that would run commands out of chat messages, or may do so."""
    version = launch.cli_version(path)
    if version >= launch.OLDEST_VERSION:
        return
    oldest = ".".join(str(number) for number in launch.OLDEST_VERSION)
    other = "remove FLEET_CLAUDE_CLI to use the one that comes with Fleet"
    if version:
        what = f"is older than {oldest} and would run commands out of chat messages, so it is not used. Update it, or {other}."
    else:
        what = (
            f"did not say its version, and one older than {oldest} would run commands out of chat messages, so it is not used. Please try "
            f"again; if it stays, an administrator runs “{path} --version” on the worker's machine, or lets Fleet use its own: {other}."
        )
    raise NotPrepared(Finished(OutcomeClass.ERROR, sentence=f"The Claude CLI at {path} {what}"))


async def _stream(message: dict[str, Any]) -> Any:
    yield message
