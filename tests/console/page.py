"""What a reader sees of a page."""

from __future__ import annotations

import html
import re

from django.http import HttpResponse

_HIDDEN = re.compile(r"<(head|script|style|svg)\b.*?</\1>|<!--.*?-->", re.DOTALL)


def text_of(response: HttpResponse) -> str:
    """Return the words of an answer, in one line."""
    body = _HIDDEN.sub(" ", response.content.decode())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
