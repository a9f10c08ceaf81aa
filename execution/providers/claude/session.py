"""One Claude turn: the CLI waits behind the shim with its handshake done, and gets its prompt when the gate opens.

The SDK lives on an event loop of its own thread; the worker's thread talks to it through futures and a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, HookContext, HookMatcher
from claude_agent_sdk.types import SyncHookJSONOutput

from execution.ports import (
    Finished,
    Judge,
    Notice,
    NotPrepared,
    ProcessFacts,
    Prompt,
    ProviderEvent,
    ToolCall,
    UserText,
)
from execution.providers.claude import launch
from execution.providers.claude.translate import Translator
from execution.providers.claude.transport import Ended, ShimTransport, Unintelligible
from execution.shim.handle import Nursery, Shim
from execution.states import OutcomeClass
from fleet.kernel import loops

log = structlog.get_logger(__name__)
LOOP = "providers"
HANDSHAKE_SECONDS = 30.0
EXIT_SECONDS = 3.0  # what the CLI gets to leave by itself once its turn is over
KILL_GRACE_SECONDS = 0.5  # between SIGTERM and SIGKILL
GONE_SECONDS = 10.0

_LOST_SESSION = "The earlier part of this conversation is not on this machine any more, so I start afresh."
_ASK_ADMIN = "Please try again; if it stays, an administrator finds more in the worker's log."


class Broken(Exception):
    """The CLI broke before it was ready; carries the end."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished.sentence)
        self.finished = finished


class ClaudeRun:
    """One turn with the CLI. `prepare`, `release` and `events` belong to the worker's thread; the rest to any."""

    def __init__(self, prompt: Prompt, *, nursery: Nursery) -> None:
        self._prompt, self._nursery = prompt, nursery
        self._judge: Judge
        self._shim: Shim | None = None
        self._scratch: Path | None = None
        self._lock = threading.Lock()
        self._killed = False
        self._ready: Future[None] = Future()
        self._texts: Future[tuple[UserText, ...]] = Future()
        self._events: queue.SimpleQueue[ProviderEvent | None] = queue.SimpleQueue()
        self._client: ClaudeSDKClient | None = None
        self._life: Future[None] | None = None
        self._over = False
        self._transport = ShimTransport()
        self._translator = Translator()

    # --- Before the gate -------------------------------------------------------------------------------------------------

    def prepare(self) -> ProcessFacts:
        """Start the CLI and wait until it is ready for a prompt; it calls no API before it gets one."""
        facts = self._start()
        try:
            self._ready.result(HANDSHAKE_SECONDS)
        except TimeoutError:
            late = f"It was not ready after {HANDSHAKE_SECONDS:.0f} seconds."
            raise NotPrepared(self._broken(late, self._transport.stderr)) from None
        except Broken as error:
            raise NotPrepared(error.finished) from error
        return facts

    def _start(self) -> ProcessFacts:
        plan = launch.prepare(self._prompt)
        self._scratch = plan.scratch
        if launch.cli_version(Path(plan.argv[0])) < launch.OLDEST_VERSION:
            raise NotPrepared(_too_old(plan.argv[0]))
        with self._lock:
            if self._killed:
                raise NotPrepared(Finished(OutcomeClass.STOPPED, sentence="Stopped."))
            self._shim = shim = self._nursery.take()
        try:
            facts = shim.start(plan.argv, environment=plan.environment, secrets=plan.secrets, cwd=plan.cwd)
        except OSError as error:
            raise NotPrepared(self._broken(f"It could not be started: {error.strerror}.")) from error
        self._translator.resumed = plan.resumed
        if self._prompt.resume and not plan.resumed:
            self._events.put(Notice(_LOST_SESSION))
        self._transport.attach(shim)
        self._life = loops.submit(self._live(), loop=LOOP)
        return facts

    # --- The turn --------------------------------------------------------------------------------------------------------

    def release(self, texts: tuple[UserText, ...], *, judge: Judge) -> None:
        """Hand over the prompt."""
        self._judge = judge
        self._texts.set_result(texts)

    def events(self, *, timeout: float) -> Iterator[ProviderEvent | None]:
        """Yield what the CLI tells; the last one is Finished, unless the run was killed."""
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                yield None
                continue
            if event is None:
                return
            yield event
            if isinstance(event, Finished):
                return

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

    # --- The end ---------------------------------------------------------------------------------------------------------

    def kill(self) -> bool:
        """Kill the CLI and everything below it; return whether that is proven."""
        with self._lock:
            self._killed = True
            shim = self._shim
        if shim is None:
            return True
        shim.stop(grace=KILL_GRACE_SECONDS)
        return shim.wait_gone(GONE_SECONDS)

    def close(self) -> None:
        """Wait for the CLI to leave by itself after its result, kill it otherwise, and let go of everything."""
        if self._shim is not None:
            self._let_go_of(self._shim)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _let_go_of(self, shim: Shim) -> None:
        if not (self._over and shim.wait_gone(EXIT_SECONDS)):
            self.kill()
        if self._life is not None:
            self._life.cancel()
        loops.submit(self._transport.close(), loop=LOOP)
        shim.close()

    # --- On the loop -----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, wait for the gate, hand over the prompt, and report until the result."""
        self._client = client = ClaudeSDKClient(self._options(), transport=self._transport)
        try:
            await client.connect()
            self._ready.set_result(None)
            texts = await asyncio.wrap_future(self._texts)
            await client.query(_as_message(texts))
            await self._report(client)
        except Exception as error:
            self._end(await self._explain(error))
        finally:
            self._events.put(None)
            await self._transport.end_input()
            if self._over:
                await self._hear_out(client)
            await client.disconnect()

    async def _hear_out(self, client: ClaudeSDKClient) -> None:
        """Read on until the CLI has left: one whose last words nobody reads waits two seconds for a reader."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(EXIT_SECONDS):
                async for _ in client.receive_messages():
                    pass

    async def _report(self, client: ClaudeSDKClient) -> None:
        async for message in client.receive_messages():
            for event in self._translator.take(message):
                self._over = isinstance(event, Finished)
                self._events.put(event)
                if self._over:
                    return
        raise Ended

    def _end(self, finished: Finished) -> None:
        if self._ready.done():
            self._events.put(finished)
        else:
            self._ready.set_exception(Broken(finished))

    def _options(self) -> ClaudeAgentOptions:
        """Return what the SDK itself has to know; the CLI's arguments are ours."""
        return ClaudeAgentOptions(hooks={"PreToolUse": [HookMatcher(hooks=[self._ask])]}, verbatim_prompts=True)

    async def _ask(self, call: Any, call_id: str | None, _context: HookContext) -> SyncHookJSONOutput:
        """PreToolUse: every call, whatever the CLI itself would have allowed."""
        tool_call = ToolCall(call_id or "", call["tool_name"], call["tool_input"])
        verdict = await asyncio.to_thread(self._judge, tool_call)
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
            return Finished(OutcomeClass.STOPPED, text=self._translator.said, sentence="Stopped.")
        when = "in the middle of the turn" if self._ready.done() else "before it was ready"
        what = str(error) if isinstance(error, Unintelligible) else f"It ended {when}."
        await asyncio.to_thread(self.kill)
        return self._broken(what, await self._transport.last_words())

    def _broken(self, what: str, stderr: str = "") -> Finished:
        status = self._shim.exit_status if self._shim else None
        log.warning("claude.broken", session=self._prompt.session_id, what=what, stderr=stderr, exit_status=status)
        return Finished(
            OutcomeClass.ERROR,
            text=self._translator.said,
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


async def _as_message(texts: tuple[UserText, ...]) -> AsyncIterator[dict[str, Any]]:
    """Yield the messages of the turn as one: sent apart, the CLI could answer the first and leave the second for another turn.

    Its uuid is the last one's, which no earlier turn can have used.
    """
    yield {
        "type": "user",
        "uuid": texts[-1].uuid,
        "message": {"role": "user", "content": [{"type": "text", "text": text.text} for text in texts]},
        "parent_tool_use_id": None,
    }
