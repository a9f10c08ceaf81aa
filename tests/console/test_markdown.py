"""Replies are rendered on the server, and nothing in them can run, load or mislead."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.console.markdown import render


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "<svg/onload=alert(1)>",
        "![x](https://example.org/pixel.png)",
        "`<b onclick=1>`",
    ],
)
def test_nothing_in_a_reply_can_run_or_load(text: str) -> None:
    tags = re.findall(r"<[^>]*>", render(text))
    for danger in ("<script", "<img", "<svg", "<b ", "javascript:", "data:", "onclick"):
        assert not any(danger in tag for tag in tags)


@given(st.text())
def test_any_text_renders_without_active_parts(text: str) -> None:
    html = render(text).lower()
    assert "<script" not in html
    assert "<iframe" not in html
    assert "<img" not in html


def test_a_link_leads_out_without_telling_from_where() -> None:
    assert (
        render("[x](https://example.org/)") == '<p><a href="https://example.org/" rel="noopener nofollow">x</a></p>\n'
    )


def test_a_block_of_code_can_be_scrolled_by_keyboard() -> None:
    assert '<div class="code"><pre tabindex="0"><code class="language-python">' in render("```python\n1 < 2\n```")


def test_headings_take_their_place_below_the_page_and_leave_no_gap() -> None:
    html = render("#### Deep first\n\n# Then high\n\n###### And deep")
    assert html.count("<h2>") == 2
    assert html.count("<h3>") == 1


def test_line_breaks_stay_in_replies_and_not_in_documents() -> None:
    assert "<br" in render("one\ntwo")
    assert "<br" not in render("one\ntwo", breaks=False)
