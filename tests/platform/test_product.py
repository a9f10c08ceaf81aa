"""The whole product: up from nothing, talked to, down without a trace or killed, and up again with everything it knew."""

from __future__ import annotations

import json

import psutil
import pytest

from tests.product import Product

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]


def test_the_whole_product_comes_up_goes_down_and_goes_on() -> None:
    with Product() as product:
        assert product.sql("select count(*) from identities_identity") == [(14,)]
        first_answer = product.manage("say", "ada", "Do you hear me?")
        everything = product.processes()
        product.stop()
        assert product.process.returncode == 0
        _, alive = psutil.wait_procs(everything, timeout=60)
        assert alive == []
        said = (product.var.parent / "log").read_text()
        assert f"Fleet is ready at http://127.0.0.1:{product.port}" in said
        assert f"Sign in once with http://127.0.0.1:{product.port}/sign-in/" in said

        product.start()
        assert product.sql("select count(*) from identities_identity") == [(14,)]
        assert product.sql("select count(*) from conversations_turn where state = 'replied'") == [(1,)]
        assert product.manage("say", "ada", "And now?") and first_answer
        assert json.loads(product.manage("status", "--json"))["healthy"]

        everything = product.processes()
        product.process.kill()
        product.process.wait()
        product.start()  # one that is still ending may have answered that it is ready
        _, alive = psutil.wait_procs(everything, timeout=60)
        assert alive == []
        product.wait_until_ready()
        assert product.sql("select count(*) from conversations_turn where state = 'replied'") == [(2,)]
        assert product.manage("say", "ada", "Still there?")
