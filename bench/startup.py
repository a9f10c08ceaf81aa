"""From the command to a page that answers, and what the idle product weighs."""

from __future__ import annotations

import time

from bench.figures import Figure
from tests.emulators.telegram import TelegramProcess
from tests.product import Product


def run() -> list[Figure]:
    """Start twice, then let 14 bots poll and weigh the processes."""
    with TelegramProcess() as telegram:
        product = Product(TELEGRAM_API_ROOT=telegram.url)
        with product:
            product.stop()
            slugs = _slugs_after_first_start(product)
            for number, slug in enumerate(slugs):
                token = f"{2000 + number}:bench-{slug}"
                telegram.add_bot(token, f"{slug}_bot")
                product.environment[f"FLEET_TELEGRAM_{slug.upper().replace('-', '_')}_TOKEN"] = token
            second = product.start()
            telegram.wait_for_calls("getUpdates", count=len(slugs), timeout=60)
            time.sleep(10)  # let every process come to rest
            weights = {name: _weight(product, name) for name in ("web", "worker", "runner", "gateways")}
    return [
        Figure("Start to ready, data kept", second, "s", target=10),
        Figure(
            "Idle memory: web + worker + gateways, 14 bots",
            weights["web"] + weights["worker"] + weights["gateways"],
            "MB",
            target=450,
            note=", ".join(f"{name} {weight:.0f}" for name, weight in weights.items()) + " (resident set)",
        ),
        Figure("Idle memory with runner", sum(weights.values()), "MB"),
    ]


def _slugs_after_first_start(product: Product) -> list[str]:
    product.start()
    slugs = [row[0] for row in product.sql("SELECT slug FROM identities_identity ORDER BY id")]
    product.stop()
    return slugs


def _weight(product: Product, service: str) -> float:
    """Return the resident memory of a service's processes in MB."""
    return sum(process.memory_info().rss for process in product.service(service)) / 1e6
