"""A person writes in Telegram, the real CLI answers: what we add to the bare CLI's turn.

The bare turn is the CLI alone: spawned, initialised, prompted, answered, against the same model emulator, interleaved with ours.
Our own overhead is what lies outside the CLI: from the update being fetched to the model being asked, less what the bare CLI takes
from spawn to asking; and from the model's last byte to sendMessage, less what the bare CLI takes to report its result.
"""

from __future__ import annotations

import asyncio
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
    """Seconds of one message: the whole way, and the two parts before and after the model."""

    whole: float
    before: float
    after: float


def run() -> list[Figure]:
    """Send the messages, alternating with bare turns."""
    with TelegramProcess() as telegram, ModelEmulator() as model, tempfile.TemporaryDirectory() as scratch:
        bot = telegram.add_bot(TOKEN, "ada_bot")
        eva = telegram.person(501, "Eva")
        variables = {
            "TELEGRAM_API_ROOT": telegram.url,
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-ant-not-a-key",
            "FLEET_TELEGRAM_ADA_TOKEN": TOKEN,
        }
        with Product(**variables) as product:
            pair(product, eva)
            ours, bare = [], []
            for number in range(WARM_UP + MESSAGES):
                bare.append(_bare(model, Path(scratch), number))
                model.clear()
                said = eva.send(bot, f"Message {number}: how are you?")
                reply = eva.wait_for_reply(said, f"Message {number}")
                request = model.requests[-1]
                fetched = said.times().fetched[0].monotonic
                asked, answered = request.at, request.ended
                whole = reply.stored.monotonic - said.times().enqueued.monotonic
                ours.append(Sample(whole, asked - fetched, reply.called.monotonic - answered))
                time.sleep(0.3)
    return _figures(ours[WARM_UP:], bare[WARM_UP:])


def _figures(ours: list[Sample], bare: list[Sample]) -> list[Figure]:
    ready = p50([turn.before for turn in bare])
    reported = p50([turn.after for turn in bare])
    overhead = [1000 * (turn.before - ready + turn.after - reported) for turn in ours]
    whole = [1000 * turn.whole for turn in ours]
    bare_whole = 1000 * p50([turn.whole for turn in bare])
    return [
        Figure("Own overhead per message, p50", p50(overhead), "ms", target=40),
        Figure("Own overhead per message, p95", p95(overhead), "ms", target=120),
        Figure(
            "Telegram message to visible reply, cold CLI, p50", p50(whole), "ms",
            target=bare_whole + 80, baseline=bare_whole, note="baseline: the bare CLI turn, same run",
        ),
        Figure("Telegram message to visible reply, cold CLI, p95", p95(whole), "ms"),
    ]  # fmt: skip


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
        before=request.at - turn.moments["spawned"],
        after=turn.moments["result"] - request.ended,
    )


def pair(product: Product, person: Person) -> None:
    """Connect the emulator's person with the operator, as a pairing code does."""
    product.sql(
        "INSERT INTO identities_chataccount (platform, external_id, person_id)"
        " SELECT 'telegram', %s, id FROM identities_person ORDER BY id LIMIT 1",
        str(person.id),
    )
