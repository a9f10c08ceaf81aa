"""One CLI: started behind a shim, its handshake done, then given one turn after the other until it is let go.

The SDK lives on an event loop of its own thread; the worker's threads talk to it through futures and queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import structlog
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, HookContext, HookMatcher, Message
from claude_agent_sdk.types import SyncHookJSONOutput

from execution.ports import Finished, NotPrepared, ProcessFacts, Prompt, ToolCall, Verdict
from execution.providers.claude import launch
from execution.providers.claude.counting import Counting
from execution.providers.claude.transport import ShimTransport
from execution.shim.handle import Nursery, Shim
from execution.shim.pipes import Ended, Unintelligible
from execution.states import OutcomeClass
from fleet.kernel import loops

log = structlog.get_logger(__name__)
LOOP = "providers"
HANDSHAKE_SECONDS = 30.0
EXIT_SECONDS = 3.0  # what the CLI gets to leave by itself once its turn is over
KILL_GRACE_SECONDS = 0.5  # between SIGTERM and SIGKILL
GONE_SECONDS = 10.0

_ASK_ADMIN = "Please try again; if it stays, an administrator finds more in the worker's log."


class Turn(Protocol):
    """What the process asks of the turn it is working on. All but `judge` are called on the loop."""

    @property
    def said(self) -> str:
        """Return everything the model has said so far."""
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


class Broken(Exception):
    """The CLI broke before it was ready; carries the end."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished.sentence)
        self.finished = finished


class ClaudeProcess:
    """`start`, `give` and `let_go` belong to whoever owns the turn; `kill` and `interrupt` to any thread."""

    def __init__(self, prompt: Prompt, *, nursery: Nursery) -> None:
        self._prompt, self._nursery = prompt, nursery
        self._shim: Shim | None = None
        self._scratch: Path | None = None  # set before the CLI is started
        self._lock = threading.Lock()
        self._killed = False
        self._ready: Future[None] = Future()
        self._client: ClaudeSDKClient | None = None
        self._life: Future[None] | None = None
        self._turns: asyncio.Queue[Turn | None] = asyncio.Queue()
        self._turn: Turn | None = None
        self._transport = ShimTransport()
        self.counting = Counting()
        self.resumed = False
        self.facts: ProcessFacts

    # --- Its start -------------------------------------------------------------------------------------------------------

    def start(self) -> ProcessFacts:
        """Start the CLI and wait until it is ready for a prompt; it calls no API before it gets one. Raises NotPrepared."""
        self.facts = self._spawn()
        try:
            self._ready.result(HANDSHAKE_SECONDS)
        except TimeoutError:
            late = f"It was not ready after {HANDSHAKE_SECONDS:.0f} seconds."
            raise NotPrepared(self._broken(late, self._transport.stderr)) from None
        except Broken as error:
            raise NotPrepared(error.finished) from error
        return self.facts

    def _spawn(self) -> ProcessFacts:
        plan = launch.prepare(self._prompt)
        self._scratch = plan.scratch
        cli = launch.cli_path()
        if launch.cli_version(cli) < launch.OLDEST_VERSION:
            raise NotPrepared(_too_old(str(cli)))
        with self._lock:
            if self._killed:
                raise NotPrepared(Finished(OutcomeClass.STOPPED, sentence="Stopped."))
            self._shim = shim = self._nursery.take()
        try:
            facts = shim.start(plan.argv, environment=plan.environment, secrets=plan.secrets, cwd=plan.cwd)
        except OSError as error:
            raise NotPrepared(self._broken(f"It could not be started: {error.strerror}.")) from error
        self.resumed = plan.resumed
        self._transport.attach(shim)
        self._life = loops.submit(self._live(), loop=LOOP)
        return facts

    # --- Its turns -------------------------------------------------------------------------------------------------------

    def give(self, turn: Turn) -> None:
        """Let it work on this turn."""
        self._hand_over(turn)

    def _hand_over(self, turn: Turn | None) -> None:
        loops.background(LOOP).call_soon_threadsafe(self._turns.put_nowait, turn)

    def is_there(self) -> bool:
        """Return whether it could take a turn: it was not killed, and has not left by itself."""
        return not self._killed and (self._shim is None or self._shim.alive)

    def interrupt(self) -> None:
        """Ask the CLI to end its turn; its result follows."""
        if self._client is not None:
            loops.submit(self._interrupt(), loop=LOOP)

    async def _interrupt(self) -> None:
        try:
            if self._client is not None:
                await self._client.interrupt()
        except Exception as error:
            log.debug("claude.not_interrupted", error=str(error))

    # --- Its end ---------------------------------------------------------------------------------------------------------

    def kill(self) -> bool:
        """Kill the CLI and everything below it; return whether that is proven."""
        with self._lock:
            self._killed = True
            shim = self._shim
        if shim is None:
            return True
        shim.stop(grace=KILL_GRACE_SECONDS)
        return shim.wait_gone(GONE_SECONDS)

    def let_go(self, *, politely: bool) -> None:
        """Let the CLI leave by itself when it has nothing left to do (`politely`), kill it otherwise, and keep nothing of it."""
        self._hand_over(None)
        if self._shim is not None:
            if not (politely and self._shim.wait_gone(EXIT_SECONDS)):
                self.kill()
            if self._life is not None:
                self._life.cancel()
            loops.submit(self._transport.close(), loop=LOOP)
            self._shim.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

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
                await client.query(_stream(turn.message()))
                await self._report(client, turn)
        except Exception as error:
            self._end(await self._explain(error))
        finally:
            await self._leave(client)

    async def _report(self, client: ClaudeSDKClient, turn: Turn) -> None:
        async for message in client.receive_messages():
            if turn.take(message):
                return
        raise Ended

    async def _leave(self, client: ClaudeSDKClient) -> None:
        if self._turn is not None:
            self._turn.silent()
        await self._transport.end_input()
        if not self._killed:
            await self._hear_out(client)
        await client.disconnect()

    async def _hear_out(self, client: ClaudeSDKClient) -> None:
        """Read on until the CLI has left: one whose last words nobody reads waits two seconds for a reader."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(EXIT_SECONDS):
                async for _ in client.receive_messages():
                    pass

    def _end(self, finished: Finished) -> None:
        if not self._ready.done():
            self._ready.set_exception(Broken(finished))
        elif self._turn is not None:
            self._turn.broke(finished)

    def _options(self) -> ClaudeAgentOptions:
        """Return what the SDK itself has to know; the CLI's arguments are ours."""
        return ClaudeAgentOptions(hooks={"PreToolUse": [HookMatcher(hooks=[self._ask])]}, verbatim_prompts=True)

    async def _ask(self, call: Any, call_id: str | None, _context: HookContext) -> SyncHookJSONOutput:
        """PreToolUse: every call, whatever the CLI itself would have allowed."""
        tool_call = ToolCall(call_id or "", call["tool_name"], call["tool_input"])
        verdict = await asyncio.to_thread(self._turn.judge, tool_call) if self._turn else Verdict(False, "No turn.")
        return {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "allow" if verdict.allow else "deny",
                "permissionDecisionReason": verdict.reason,
            }
        }

    # --- Explaining ------------------------------------------------------------------------------------------------------

    async def _explain(self, error: Exception) -> Finished:
        """Turn the end of a CLI that broke into a sentence; by then nothing of it is left."""
        if self._killed:
            return Finished(OutcomeClass.STOPPED, text=self._said(), sentence="Stopped.")
        when = "in the middle of the turn" if self._ready.done() else "before it was ready"
        what = str(error) if isinstance(error, Unintelligible) else f"It ended {when}."
        await asyncio.to_thread(self.kill)
        return self._broken(what, await self._transport.last_words())

    def _said(self) -> str:
        return self._turn.said if self._turn is not None else ""

    def _broken(self, what: str, stderr: str = "") -> Finished:
        status = self._shim.exit_status if self._shim else None
        log.warning("claude.broken", session=self._prompt.session_id, what=what, stderr=stderr, exit_status=status)
        return Finished(
            OutcomeClass.ERROR,
            text=self._said(),
            sentence=f"The Claude CLI failed. {what} {_ASK_ADMIN}",
            details={"stderr": stderr, "exit_status": status},
        )


def _too_old(path: str) -> Finished:
    oldest = ".".join(str(number) for number in launch.OLDEST_VERSION)
    return Finished(
        OutcomeClass.ERROR,
        sentence=(
            f"The Claude CLI at {path} is older than {oldest} or not a Claude CLI, and would run commands out of chat messages, "
            "so it is not used. Update it, or remove FLEET_CLAUDE_CLI to use the one that comes with Fleet."
        ),
    )


async def _stream(message: dict[str, Any]) -> Any:
    yield message
