"""A person writes in Telegram, the real CLI answers: what we add to the bare CLI's turn.

Cold, every message gets a new CLI; warm, the CLI that answered the last one. The bare turn is the CLI alone: spawned, initialised,
prompted, answered, against the same model emulator, interleaved with ours. Nobody writes faster than Telegram lets a bot answer.

Our own overhead is what lies outside the CLI: from the update being fetched to the CLI being spawned, from the CLI being ready to the
model being asked, less what the bare CLI takes from its prompt to asking, and from the CLI's last word to sendMessage.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, p50, p95
from tests.emulators.cli_probe import bare_turn
from tests.emulators.model import ModelEmulator
from tests.emulators.telegram import Person, TelegramProcess
from tests.product import Product

WARM_UP = 4
MESSAGES = 30
TOKEN = "3001:bench"


@dataclass(frozen=True)
class Sample:
    """Seconds of one message: the whole way, what came before the CLI's start, from its being ready to the model, and after its end."""

    whole: float
    to_spawn: float
    to_model: float
    to_send: float


def run() -> list[Figure]:
    """Send the messages with a new CLI for each, alternating with bare turns; then with a CLI that stays."""
    with TelegramProcess() as telegram, ModelEmulator() as model, tempfile.TemporaryDirectory() as scratch:
        bench = Bench(telegram, model, Path(scratch))
        cold, bare = bench.converse(FLEET_WARM_PROCESSES="0")
        warm, _ = bench.converse(compare=False)
    return [*_cold(cold, bare), *_warm(warm)]


class Bench:
    """Telegram, the model, and Eva, who writes to Ada."""

    def __init__(self, telegram: TelegramProcess, model: ModelEmulator, scratch: Path) -> None:
        self._model, self._scratch = model, scratch
        self._bot = telegram.add_bot(TOKEN, "ada_bot")
        self._eva = telegram.person(501, "Eva")
        self._variables = {
            "TELEGRAM_API_ROOT": telegram.url,
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-ant-not-a-key",
            "FLEET_TELEGRAM_ADA_TOKEN": TOKEN,
        }

    def converse(self, *, compare: bool = True, **variables: str) -> tuple[list[Sample], list[Sample]]:
        """Return what the messages of one conversation took, and the bare turns between them."""
        ours, bare = [], []
        with Product(**self._variables, **variables) as product:
            pair(product, self._eva)
            for number in range(WARM_UP + MESSAGES):
                if compare:
                    bare.append(_bare(self._model, self._scratch, number))
                ours.append(self._message(product, number))
        return ours[WARM_UP:], bare[WARM_UP:]

    def _message(self, product: Product, number: int) -> Sample:
        self._model.clear()
        said = self._eva.send(self._bot, f"Message {number}: how are you?")
        reply = self._eva.wait_for_reply(said, f"Message {number}")
        take_a_breath()
        moments = _moments(product)
        return Sample(
            whole=reply.stored.monotonic - said.times().enqueued.monotonic,
            to_spawn=moments["spawned"] - said.times().fetched[0].monotonic,
            to_model=self._model.requests[-1].at - moments["ready"],
            to_send=reply.called.monotonic - moments["ended"],
        )


def take_a_breath() -> None:
    """Wait until the bot may answer again, once a second; not by the beat, lest a clock of the product always strike at one place."""
    time.sleep(random.uniform(1.0, 1.5))


def _moments(product: Product) -> dict[str, float]:
    """Return the moments of the last execution as time.monotonic(), which is the same for all processes of a machine."""
    (row,) = product.sql(
        "SELECT extract(epoch FROM spawned_at), extract(epoch FROM ready_at), extract(epoch FROM provider_ended_at)"
        " FROM execution_execution ORDER BY id DESC LIMIT 1"
    )
    offset = time.time() - time.monotonic()
    return dict(zip(("spawned", "ready", "ended"), (float(moment) - offset for moment in row), strict=True))


def _cold(ours: list[Sample], bare: list[Sample]) -> list[Figure]:
    bare_to_model, bare_whole = p50([turn.to_model for turn in bare]), 1000 * p50([turn.whole for turn in bare])
    overhead = [1000 * (turn.to_spawn + turn.to_model - bare_to_model + turn.to_send) for turn in ours]
    whole = [1000 * turn.whole for turn in ours]
    parts = (
        f"fetched to spawn {1000 * p50([turn.to_spawn for turn in ours]):.1f},"
        f" ready to model {1000 * (p50([turn.to_model for turn in ours]) - bare_to_model):.1f} over bare,"
        f" CLI's end to send {1000 * p50([turn.to_send for turn in ours]):.1f}"
    )
    return [
        Figure("Own overhead per message, p50", p50(overhead), "ms", target=40, note=parts),
        Figure("Own overhead per message, p95", p95(overhead), "ms", target=120),
        Figure(
            "Telegram message to visible reply, cold CLI, p50", p50(whole), "ms",
            target=bare_whole + 80, baseline=bare_whole, note="baseline: the bare CLI turn, same run",
        ),
        Figure("Telegram message to visible reply, cold CLI, p95", p95(whole), "ms"),
    ]  # fmt: skip


def _warm(ours: list[Sample]) -> list[Figure]:
    whole = [1000 * turn.whole for turn in ours]
    return [
        Figure("Telegram message to visible reply, warm CLI, p50", p50(whole), "ms", target=120),
        Figure("Telegram message to visible reply, warm CLI, p95", p95(whole), "ms", target=250),
    ]


def _bare(model: ModelEmulator, scratch: Path, number: int) -> Sample:
    """Return one turn of the CLI with nothing around it."""
    home, cwd = scratch / "home", scratch / "work"
    cwd.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    model.clear()
    turn = asyncio.run(bare_turn(f"Message {number}: how are you?", url=model.url, home=home, cwd=cwd))
    request = model.requests[-1]
    return Sample(
        whole=turn.moments["result"] - turn.moments["spawned"],
        to_spawn=0.0,
        to_model=request.at - turn.moments["ready"],
        to_send=0.0,
    )


def pair(product: Product, person: Person) -> None:
    """Connect the emulator's person with the operator, as a pairing code does."""
    product.sql(
        "INSERT INTO identities_chataccount (platform, external_id, person_id)"
        " SELECT 'telegram', %s, id FROM identities_person ORDER BY id LIMIT 1",
        str(person.id),
    )
