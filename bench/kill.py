"""The kill switch with ten live CLIs: from the order to the last process gone, by the order's own receipt."""

from __future__ import annotations

import concurrent.futures
import time

import psutil

from bench.figures import Figure
from tests.emulators.model import ModelEmulator
from tests.product import Product

CLIS = 10


def run() -> list[Figure]:
    """Start ten long answers, throw the switch, read the receipt, and count what is left."""
    with ModelEmulator() as model:
        model.silence("", 120)
        variables = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sk-ant-not-a-key"}
        with Product(**variables) as product, concurrent.futures.ThreadPoolExecutor(CLIS) as pool:
            slugs = [row[0] for row in product.sql("SELECT slug FROM identities_identity ORDER BY id LIMIT %s", CLIS)]
            for slug in slugs:
                pool.submit(product.manage, "say", slug, "Think for a long time.", "--json")
            model.wait_for_requests(CLIS, timeout=120)
            roots = [
                psutil.Process(pid)
                for (pid,) in product.sql("SELECT pid FROM execution_execution WHERE state = 'running'")
            ]
            trees = [process for root in roots for process in [root, *root.children(recursive=True)]]
            began = time.monotonic()
            product.manage("stop", "--reason", "benchmark")
            gone, alive = psutil.wait_procs(trees, timeout=30)
            seen = time.monotonic() - began
            time.sleep(1)
            lines = product.sql(
                "SELECT extract(epoch FROM max(line.quiet_at) - o.ordered_at), count(*), count(line.quiet_at)"
                " FROM governance_killorder o JOIN governance_stopline line ON line.order_id = o.id AND line.kind = 'process'"
                " GROUP BY o.id, o.ordered_at ORDER BY o.id DESC LIMIT 1"
            )
    receipt, expected, quiet = lines[0]
    return [
        Figure(
            "Kill switch, 10 live CLIs: order to last process gone", float(receipt), "s", target=2.0,
            note=f"receipt: {quiet} of {expected} processes; {len(gone)} gone, {len(alive)} alive by pid after {seen:.1f} s",
        )
    ]  # fmt: skip
