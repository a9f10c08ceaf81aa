"""What a warm turn costs over the bare SDK, and what a process that was started ahead gains on a first turn.

Our warm turn and one of the SDK's own client, warm as well, take turns against the same model emulator. Compared is the way to the model:
ours from the update being fetched, and from the turn being admitted; the SDK's from `query()`.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient

from bench.figures import Figure, p50, p95
from bench.messages import TOKEN, pair, take_a_breath
from tests.emulators.cli_probe import CLI, environment
from tests.emulators.model import ModelEmulator
from tests.emulators.telegram import TelegramProcess
from tests.product import Product

WARM_UP = 4
MESSAGES = 30
FIRST_TURNS = 12


def run() -> list[Figure]:
    """Converse warm beside the bare SDK; then begin conversations, with a process started ahead and without."""
    with TelegramProcess() as telegram, ModelEmulator() as model, tempfile.TemporaryDirectory() as scratch:
        bench = Bench(telegram, model)
        figures = asyncio.run(bench.beside_the_sdk(Path(scratch)))
        cold, ahead = bench.first_turns(0), bench.first_turns(1)
    return [
        *figures,
        Figure(
            "First turn of a session, p50", p50(cold), "ms", note="Telegram message to visible reply, no process ready"
        ),
        Figure("First turn of a session, started ahead, p50", p50(ahead), "ms", baseline=p50(cold)),
        Figure("First turn of a session, started ahead, p95", p95(ahead), "ms", baseline=p95(cold)),
    ]


class Bench:
    """Telegram, the model, and Eva, who writes to Ada."""

    def __init__(self, telegram: TelegramProcess, model: ModelEmulator) -> None:
        self._model = model
        self._bot = telegram.add_bot(TOKEN, "ada_bot")
        self._eva = telegram.person(501, "Eva")
        self._variables = {
            "TELEGRAM_API_ROOT": telegram.url,
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-ant-not-a-key",
            "FLEET_TELEGRAM_ADA_TOKEN": TOKEN,
        }

    async def beside_the_sdk(self, scratch: Path) -> list[Figure]:
        """Alternate between a message to the product and a query of the SDK."""
        ours, bare = [], []
        with Product(**self._variables) as product:
            pair(product, self._eva)
            async with ClaudeSDKClient(_options(self._model.url, scratch)) as client:
                for number in range(WARM_UP + MESSAGES):
                    bare.append(await self._bare(client, number))
                    ours.append(await asyncio.to_thread(self._ours, product, number))
        return _over_the_sdk(ours[WARM_UP:], bare[WARM_UP:])

    async def _bare(self, client: ClaudeSDKClient, number: int) -> float:
        self._model.clear()
        began = time.monotonic()
        await client.query(f"Message {number}: how are you?")
        async for _ in client.receive_response():
            pass
        return 1000 * (self._model.requests[-1].at - began)

    def _ours(self, product: Product, number: int) -> tuple[float, float, float]:
        """Return what the way to the model took in milliseconds: since the update was fetched, the turn queued, the turn claimed."""
        self._model.clear()
        said = self._eva.send(self._bot, f"Message {number}: how are you?")
        self._eva.wait_for_reply(said, f"Message {number}")
        take_a_breath()
        (row,) = product.sql(
            "SELECT extract(epoch FROM queued_at), extract(epoch FROM claimed_at)"
            " FROM execution_execution ORDER BY id DESC LIMIT 1"
        )
        offset, asked = time.time() - time.monotonic(), self._model.requests[-1].at
        began = (said.times().fetched[0].monotonic, float(row[0]) - offset, float(row[1]) - offset)
        since_fetched, since_queued, since_claimed = (1000 * (asked - moment) for moment in began)
        return since_fetched, since_queued, since_claimed

    def first_turns(self, prewarmed: int) -> list[float]:
        """Return what the first message after /new takes, each time, to its visible reply."""
        took = []
        with Product(**self._variables) as product:
            pair(product, self._eva)
            product.sql("UPDATE identities_identity SET prewarmed = %s WHERE slug = 'ada' RETURNING 1", prewarmed)
            for number in range(2 + FIRST_TURNS):
                fresh = self._eva.send(self._bot, "/new")
                self._eva.wait_for_reply(fresh)
                take_a_breath()
                said = self._eva.send(self._bot, f"Message {number}: how are you?")
                reply = self._eva.wait_for_reply(said, f"Message {number}")
                took.append(1000 * (reply.stored.monotonic - said.times().enqueued.monotonic))
                time.sleep(1)  # another one is started ahead
                take_a_breath()
        return took[2:]


def _options(url: str, scratch: Path) -> ClaudeAgentOptions:
    home, work = scratch / "home", scratch / "work"
    for directory in (home / "tmp", work):
        directory.mkdir(parents=True)
    return ClaudeAgentOptions(
        cli_path=CLI,
        cwd=work,
        env=environment(url, home),
        model="claude-haiku-4-5",
        system_prompt="You are a helpful colleague.",
        setting_sources=[],
        include_partial_messages=True,
    )


def _over_the_sdk(ours: list[tuple[float, float, float]], bare: list[float]) -> list[Figure]:
    base = p50(bare)
    fetched, queued, claimed = ([turn[number] for turn in ours] for number in range(3))
    note = "to the model's first request; baseline: ClaudeSDKClient.query(), warm, same run"
    return [
        Figure(
            "Warm turn to CLI prompt over the SDK, since it was queued, p50", p50(queued) - base, "ms", 15, base, note
        ),
        Figure(
            "Warm turn to CLI prompt over the SDK, since a worker claimed it, p50",
            p50(claimed) - base,
            "ms",
            None,
            base,
        ),
        Figure(
            "Warm turn to CLI prompt over the SDK, since the update was fetched, p50",
            p50(fetched) - base,
            "ms",
            None,
            base,
        ),
        Figure(
            "Warm turn to CLI prompt over the SDK, since it was queued, p95",
            p95(queued) - p95(bare),
            "ms",
            None,
            p95(bare),
        ),
    ]
