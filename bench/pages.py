"""The console's pages: server time and round trips to the database."""

from __future__ import annotations

import re
import time
import urllib.request
from http.cookiejar import CookieJar

from bench.figures import Figure, p50
from tests.product import Product

PAGES = ["/fleet/", "/fleet/ada/", "/chat/", "/kill-switch/", "/account/"]
TIMES = 20


def run() -> list[Figure]:
    """Sign in by the one-time link and ask for each page, as a browser does."""
    with Product() as product:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        _sign_in(browser, product.manage("signin_link").strip())
        return [_page(browser, f"http://127.0.0.1:{product.port}", path) for path in PAGES]


def _sign_in(browser: urllib.request.OpenerDirector, link: str) -> None:
    page = browser.open(link, timeout=10).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    if token is None:
        raise RuntimeError("The sign-in page has no form.")
    browser.open(urllib.request.Request(link, data=f"csrfmiddlewaretoken={token[1]}".encode()), timeout=10)


def _page(browser: urllib.request.OpenerDirector, root: str, path: str) -> Figure:
    taken = []
    for _ in range(TIMES):
        began = time.monotonic()
        with browser.open(root + path, timeout=10) as answer:
            answer.read()
        taken.append(1000 * (time.monotonic() - began))
    return Figure(f"Page {path}, p50", p50(taken), "ms", target=100, note="request to last byte on loopback")
