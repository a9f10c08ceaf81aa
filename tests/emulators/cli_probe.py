"""The real Claude CLI with nothing around it: what a turn takes when no code of ours is in the way.

    async with BareCli(model.url, home, cwd) as cli:
        turn = await cli.turn("hello")     # turn.result["result"], turn.seconds("prompted", "result")

`bare_turn` is one turn of a freshly started process, the baseline of the benchmark.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import claude_agent_sdk

CLI = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
LONGEST_LINE = 256 * 1024**2
ARGUMENTS = (
    *("--output-format", "stream-json", "--input-format", "stream-json", "--verbose"),
    *("--include-partial-messages", "--setting-sources=", "--permission-mode", "default"),
)


@dataclass
class Turn:
    """`moments` are `time.monotonic()` of prompted, first_event, first_text, result; `messages` are lines of the CLI."""

    uuid: str
    moments: dict[str, float] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def seconds(self, start: str, end: str) -> float:
        return self.moments[end] - self.moments[start]

    def note(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.moments.setdefault("first_event", time.monotonic())
        if message.get("type") == "stream_event" and message["event"]["type"] == "content_block_delta":
            self.moments.setdefault("first_text", time.monotonic())
        if message.get("type") == "result":
            self.moments["result"] = time.monotonic()
            self.result = message


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """All that the CLI needs: nothing of the caller's environment but PATH."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "CLAUDE_CODE_TMPDIR": str(home / "tmp"),
        "ANTHROPIC_API_KEY": "sk-ant-not-a-key",
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        **more,
    }


class BareCli:
    """One CLI process. `spawned` and `ready` (its answer to initialize) are `time.monotonic()`."""

    def __init__(
        self,
        url: str,
        home: Path,
        cwd: Path,
        *,
        system_prompt: str = "You are a helpful colleague.",
        model: str = "claude-sonnet-4-5",
        arguments: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._command = [str(CLI), *ARGUMENTS, "--system-prompt", system_prompt, "--model", model, *arguments]
        self._environment = environment(url, home, **(variables or {}))
        self._pass_fds = pass_fds
        (home / "tmp").mkdir(exist_ok=True)
        self._cwd = cwd
        self.stderr = b""

    async def __aenter__(self) -> Self:
        self.spawned = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._cwd,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            pass_fds=self._pass_fds,
        )
        self._reading_stderr = asyncio.create_task(self._read_stderr())
        await self.control({"subtype": "initialize", "hooks": None})
        self.ready = time.monotonic()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 10)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._reading_stderr

    async def turn(self, prompt: str, *, id: str = "") -> Turn:
        turn = await self.say(prompt, id=id)
        return await self.finish(turn)

    async def say(self, prompt: str, *, id: str = "") -> Turn:
        """Hand over a prompt, word for word (`client_composed`), and do not wait."""
        turn = Turn(id or str(uuid.uuid4()))
        message = {"role": "user", "content": prompt}
        user = {
            "type": "user",
            "uuid": turn.uuid,
            "message": message,
            "parent_tool_use_id": None,
            "client_composed": True,
        }
        turn.moments["prompted"] = time.monotonic()
        await self._write(user)
        return turn

    async def finish(self, turn: Turn) -> Turn:
        """Read until the result, or until the process ends."""
        return await self.read_until(turn, lambda message: message["type"] == "result")

    async def read_until(self, turn: Turn, reached: Callable[[dict[str, Any]], bool]) -> Turn:
        """Read up to the first message that `reached` accepts, or until the process ends."""
        while (message := await self._read()) is not None:
            turn.note(message)
            if reached(message):
                break
        return turn

    async def control(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a control request and read up to its answer; what came before the answer is returned with it."""
        number = str(uuid.uuid4())
        await self._write({"type": "control_request", "request_id": number, "request": request})
        messages: list[dict[str, Any]] = []
        while (message := await self._read()) is not None:
            messages.append(message)
            if message.get("type") == "control_response" and message["response"].get("request_id") == number:
                return messages
        await self._reading_stderr
        raise RuntimeError(f"The CLI ended ({await self.process.wait()}): {self.stderr.decode()[-2000:]}")

    async def _write(self, message: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def _read(self) -> dict[str, Any] | None:
        line = await self.process.stdout.readline()
        return json.loads(line) if line else None

    async def _read_stderr(self) -> None:
        while piece := await self.process.stderr.read(65536):
            self.stderr += piece


async def bare_turn(prompt: str, *, url: str, home: Path, cwd: Path, **cli: Any) -> Turn:
    """One turn of a new process. Adds the moments spawned and ready to those of the turn."""
    async with BareCli(url, home, cwd, **cli) as process:
        turn = await process.turn(prompt)
        turn.moments |= {"spawned": process.spawned, "ready": process.ready}
        return turn
